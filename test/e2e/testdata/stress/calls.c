/* Threads that make system calls through the same sites at the same time: each
 * site for the first time by all of them at once, and often enough that an
 * engine changes it while they do. */
#include "stress.h"

enum { CALLERS = 4, BATCH = 64, EACH = 60, SIZE = BATCH * SITE_MAX };

static const unsigned numbers[] = { SYS_getppid, SYS_getuid, SYS_getpid, SYS_getgid };
static long results[4];
static unsigned char *volatile batch;
static volatile unsigned batch_number;
static unsigned arrived, rounds;
static pthread_t callers[CALLERS];
static unsigned char *written; /* memory that is rewritten between the rounds */

static enum shape shape_of(unsigned i) { return (i + batch_number) % SHAPES; }
static unsigned number_of(unsigned i) { return (i / SHAPES + batch_number) % 4; }

static unsigned char code[SIZE + 4096]; /* what is in the batch */

/* Maps new sites where the last ones were. */
static void new_batch(void)
{
	batch_number++;
	memset(code, 0xcc, sizeof code);
	for (unsigned i = 0; i < BATCH; i++)
		put_site(code + 32 + i * SITE_MAX, shape_of(i), numbers[number_of(i)]);
	if (batch && !same_place)
		must(!munmap(batch, sizeof code), "munmap");
	batch = text(same_place ? batch : 0, code, sizeof code);
	must(!mprotect(written, 4096, PROT_READ | PROT_WRITE), "mprotect");
	memcpy(written, code, 4096);
	must(!mprotect(written, 4096, PROT_READ | PROT_EXEC), "mprotect");
	count(SITES, BATCH);
}

/* All callers pass it together; one of them calls f before. Returns 0 at the end. */
static int together(void (*f)(void))
{
	static volatile int ended;
	unsigned round = __atomic_load_n(&rounds, __ATOMIC_ACQUIRE);

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == CALLERS) {
		if (f)
			f();
		ended = stop;
		__atomic_store_n(&arrived, 0, __ATOMIC_RELEASE);
		__atomic_store_n(&rounds, round + 1, __ATOMIC_RELEASE);
	}
	while (__atomic_load_n(&rounds, __ATOMIC_ACQUIRE) == round)
		sched_yield();
	return !ended;
}

/* The syscall instruction of a site is a site, too. */
static void call(const unsigned char *base, unsigned i)
{
	enum shape s = shape_of(i);
	int n = number_of(i);
	const unsigned char *site = base + 32 + i * SITE_MAX;

	if (middle && rnd() % 8 == 0) {
		n = rnd() % 4;
		site += syscall_offset(s);
	}
	check(site, s, numbers[n], results[n], rnd(), rnd() & DF);
	count(CALLS, 1);
	/* Not in all batches: an engine may not change again what was read. */
	if (read_back && base == batch && batch_number % 4 == 1 && rnd() % 256 == 0) {
		if (memcmp(base + 32 + i * SITE_MAX, code + 32 + i * SITE_MAX, SITE_MAX))
			fail("%s reads differently", shape_names[s]);
		count(READS, 1);
	}
}

static void *caller(void *arg)
{
	uint64_t gs = 0, base = (uint64_t)&callers;
	int has_gs = own_gs && arg == 0;

	receive_signals();
	if (has_gs)
		__asm__ volatile("wrgsbase %0" ::"r"(base));
	while (together(new_batch)) {
		for (unsigned i = 0; i < BATCH; i++) {
			together(0);
			for (int j = 0; j < EACH; j++)
				call(batch, i);
			call(written, i);
		}
		if (has_gs)
			__asm__ volatile("rdgsbase %0" : "=r"(gs));
		if (has_gs && gs != base)
			fail("the GS base was %#lx, is %#lx", base, gs);
	}
	return 0;
}

void start_calls(void)
{
	for (int i = 0; i < 4; i++)
		results[i] = syscall(numbers[i]);
	written = mmap(0, SIZE + 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(written != MAP_FAILED, "mmap");
	for (long i = 0; i < CALLERS; i++)
		callers[i] = spawn(caller, (void *)i);
}

void end_calls(void)
{
	for (int i = 0; i < CALLERS; i++)
		pthread_join(callers[i], 0);
}
