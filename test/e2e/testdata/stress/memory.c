/* Threads that map, touch, protect, move, discard and unmap memory, and one
 * whose handler repairs the faults that it makes. */
#include "stress.h"

enum { MAPPERS = 2, PAGES = 64, SIZE = PAGES * 4096 };

static pthread_t mappers[MAPPERS], faulter;

static void expect(const volatile unsigned char *p, int from, unsigned char id)
{
	for (int i = from; i < PAGES; i++)
		if (p[i * 4096] != (unsigned char)(i + id))
			fail("page %d holds %d, not %d", i, p[i * 4096], (unsigned char)(i + id));
}

static void *mapper(void *arg)
{
	receive_signals();
	while (!stop) {
		unsigned char id = rnd();
		volatile unsigned char *p = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		must(p != MAP_FAILED, "mmap");
		for (int i = 0; i < PAGES; i++)
			p[i * 4096] = i + id;
		must(!mprotect((void *)p, SIZE, PROT_READ), "mprotect");
		expect(p, 0, id);
		volatile unsigned char *moved = mremap((void *)p, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
		must(moved != MAP_FAILED, "mremap");
		expect(moved, 0, id);
		must(!madvise((void *)moved, SIZE / 2, MADV_DONTNEED), "madvise");
		for (int i = 0; i < PAGES / 2; i++)
			if (moved[i * 4096])
				fail("discarded memory is not zero");
		expect(moved, PAGES / 2, id);
		must(!munmap((void *)moved, 2 * SIZE), "munmap");
		count(FAULTS, PAGES + PAGES / 2);
	}
	return 0;
}

static unsigned char *page;
static volatile int repairs;

static void repair(int sig, siginfo_t *info, void *context)
{
	if ((unsigned char *)info->si_addr < page || (unsigned char *)info->si_addr >= page + 4096)
		fail("a fault at %p, code %d", info->si_addr, info->si_code);
	if (info->si_code != SEGV_ACCERR)
		fail("a fault of code %d", info->si_code);
	must(!mprotect(page, 4096, PROT_READ | PROT_WRITE), "mprotect");
	repairs++;
}

/* Code that stores to the page behind it: the fault is inside a probe. */
static void *fault(void *arg)
{
	unsigned char *store = mmap(0, 2 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int done = 0;

	must(store != MAP_FAILED, "mmap");
	text(store, "\x48\x89\x05\xf9\x0f\x00\x00\xc3", 8); /* mov %rax,page(%rip); ret */
	page = store + 4096;
	receive_signals();
	for (; !stop; done++) {
		check(store, -1, done, done, rnd(), rnd() & DF);
		if (*(uint64_t *)page != (uint64_t)done)
			fail("memory holds %lu, not %d", *(uint64_t *)page, done);
		must(!mprotect(page, 4096, PROT_NONE), "mprotect");
	}
	if (repairs != done)
		fail("%d faults, %d repaired", done, repairs);
	count(SIGNALS, done);
	count(FAULTS, done);
	return 0;
}

void start_memory(void)
{
	struct sigaction a = { .sa_sigaction = repair, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigaction(SIGSEGV, &a, 0);
	for (int i = 0; i < MAPPERS; i++)
		mappers[i] = spawn(mapper, 0);
	faulter = spawn(fault, 0);
}

void end_memory(void)
{
	for (int i = 0; i < MAPPERS; i++)
		pthread_join(mappers[i], 0);
	pthread_join(faulter, 0);
}
