/* Code that is written, moved, jumped into and read while it makes system calls. */
#include "conform.h"
#include <link.h>
#include <sys/stat.h>
#include <sys/uio.h>

CASE(jump_to_the_syscall_instruction)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getuid), *middle = site + syscall_offset(s);
		struct state in, out;
		int wrong = 0;

		warm(site, SYS_getuid);
		for (int i = 0; i < 300; i++) {
			fill(&in, i, 0);
			in.gpr[RAX] = SYS_getgid;
			probe(&in, &out, i % 3 ? middle : site, vectors());
			/* From its start the site may set rax itself. */
			long want = i % 3 || syscall_offset(s) == 0 ? (long)getgid() : (long)getuid();
			wrong += differs(&in, &out, vectors(), compares(s)) || (long)out.gpr[RAX] != want;
		}
		printf("%s: %d wrong\n", shape_names[s], wrong);
	}
}

/* Two sites share a syscall instruction, and its first caller jumps into the middle. */
CASE(jump_first_then_fall_through)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getuid), *middle = site + syscall_offset(s);

		warm(middle, SYS_getgid);
		warm(site, SYS_getuid);
		long a = call_site(middle, SYS_getgid, 0, 0, 0), b = call_site(site, SYS_getuid, 0, 0, 0);
		printf("%s: %d %d\n", shape_names[s], a == (long)getgid(), b == getuid());
	}
}

CASE(jump_behind_the_syscall)
{
	static const enum shape comparing[] = { SYSCALL_CMP, MOV_EAX_CMP, CMP_EAX };

	for (int i = 0; i < 3; i++) {
		enum shape s = comparing[i];
		unsigned char *site = new_site(s, SYS_getgid);
		struct state in, out;
		int wrong = 0;

		warm(site, SYS_getgid);
		for (int j = 0; j < 300; j++) {
			fill(&in, j, 0);
			in.gpr[RAX] = j % 2 ? -j : j;
			probe(&in, &out, site + syscall_offset(s) + 2, vectors());
			wrong += differs(&in, &out, vectors(), 1) || out.gpr[RAX] != in.gpr[RAX];
		}
		printf("%s: %d wrong\n", shape_names[s], wrong);
	}
}

/* The bytes of the number are code too, for who jumps there: 0xc3, a `ret`. */
CASE(jump_into_the_number)
{
	unsigned char *site = new_site(MOV_EAX, 0xc3);

	warm(site, 0);
	printf("%#lx\n", call_site(site + 1, 0x1234, 0, 0, 0));
}

/* So they are in the middle of a number, and of a comparison. */
CASE(jump_into_instructions)
{
	static const struct {
		enum shape shape;
		unsigned number, offset;
	} cases[] = {
		{ MOV_EAX, 0xc300, 2 }, { MOV_EAX, 0xc30000, 3 }, { MOV_RAX, 0xc3, 3 }, { MOV_RAX, 0xc300, 4 },
		{ MOV_RAX, 0xc30000, 5 }, { SYSCALL_CMP, SYS_getgid, 3 }, { MOV_EAX_CMP, 0xc30000, 3 },
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		unsigned char *site = new_site(cases[i].shape, cases[i].number);

		for (int j = 0; j < 2; j++) {
			warm(site, cases[i].number);
			printf("%s, byte %u: %#lx", shape_names[cases[i].shape], cases[i].offset, call_site(site + cases[i].offset, 0x1234, 0, 0, 0));
			printf(", %d\n", call_site(site, cases[i].number, 0, 0, 0) == raw(cases[i].number, 0, 0, 0));
		}
	}
}

CASE(sites_over_page_borders)
{
	EACH_SHAPE(s) {
		int wrong = 0, n = 0;

		for (int start = 4096 - SITE_MAX; start < 4096 + 2; start++, n++) {
			static unsigned char bytes[3 * 4096];
			struct state in, out;

			memset(bytes, 0xcc, sizeof bytes);
			size_t length = put_site(bytes + start, s, SYS_getgid);
			unsigned char *p = text(bytes, sizeof bytes);
			for (int i = 0; i < 60; i++) {
				fill(&in, i, 0);
				in.gpr[RAX] = SYS_getgid;
				probe(&in, &out, p + start, SSE);
				wrong += differs(&in, &out, SSE, compares(s)) || (long)out.gpr[RAX] != (long)getgid();
			}
			wrong += p[start - 1] != 0xcc || p[start + length] != 0xcc;
			munmap(p, sizeof bytes);
		}
		printf("%s: %d places, %d wrong\n", shape_names[s], n, wrong);
	}
}

static sigjmp_buf back;

static void jump_back(int sig, siginfo_t *info, void *context) { siglongjmp(back, info->si_addr == 0 ? 2 : 1); }

/* A syscall instruction as the last bytes of a mapping. */
CASE(site_at_the_end_of_memory)
{
	static const char *const after[] = { "no access", "nothing", "data" };

	on(SIGSEGV, jump_back, 0);
	for (volatile int kind = 0; kind < 3; kind++) {
		static unsigned char bytes[2 * 4096];
		volatile int faults = 0;

		memcpy(bytes + 4096 - 7, "\xb8\x68\0\0\0\x0f\x05", 7);
		memcpy(bytes + 4096, "\x48\x3d\x01\xf0\xff\xff\xc3", 7);
		unsigned char *p = text(bytes, sizeof bytes);
		if (kind == 1)
			munmap(p + 4096, 4096);
		else
			mprotect(p + 4096, 4096, kind ? PROT_READ : PROT_NONE);
		for (volatile int i = 0; i < 200; i++) {
			int fault = sigsetjmp(back, 1);
			if (!fault)
				call_site(p + 4096 - (i % 2 ? 7 : 2), SYS_getgid, 0, 0, 0);
			faults += fault == 1;
		}
		printf("%s: %d faults behind the call\n", after[kind], faults);
	}
}

CASE(rewritten_code)
{
	static const unsigned numbers[] = { SYS_getgid, SYS_getuid, SYS_getpid };

	EACH_SHAPE(s) {
		unsigned char *site = written_site(s, 0);
		int wrong = 0;

		for (int i = 0; i < 28; i++) {
			enum shape now = i % 4 ? (int)s : i / 4 % SHAPES;

			memset(site, 0xcc, SITE_MAX);
			put_site(site, now, numbers[i % 3]);
			for (int j = 0; j < 40; j++)
				wrong += call_site(site, numbers[i % 3], 0, 0, 0) != raw(numbers[i % 3], 0, 0, 0);
		}
		/* And no system call at all. */
		memcpy(site, "\xb8\x07\0\0\0\xc3", 6);
		wrong += call_site(site, 0, 0, 0, 0) != 7;
		memset(site, 0x90, 16);
		site[16] = 0xc3;
		wrong += call_site(site, 11, 0, 0, 0) != 11;
		printf("%s: %d wrong\n", shape_names[s], wrong);
	}
}

/* Only the number in a site is rewritten, as some programs patch themselves. */
static void rewrite_number(const char *what, unsigned char *site)
{
	warm(site, 0);
	mprotect(site - SITE_AT, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	*(uint32_t *)(site + 1) = SYS_getuid;
	mprotect(site - SITE_AT, 4096, PROT_READ | PROT_EXEC);
	printf("%s: %d", what, call_site(site, 0, 0, 0, 0) == getuid());
	mprotect(site - SITE_AT, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	site[5] = 0x90, site[6] = 0x90;
	printf(" %ld\n", call_site(site, 0, 0, 0, 0));
}

CASE(rewritten_number) { rewrite_number("written memory", written_site(MOV_EAX, SYS_getgid)); }
CASE(rewritten_number_in_text) { rewrite_number("text", new_site(MOV_EAX, SYS_getgid)); }

static void flip(unsigned char *(*make)(enum shape, unsigned))
{
	static const unsigned numbers[] = { SYS_getgid, SYS_getuid, SYS_getpid };

	EACH_SHAPE(s) {
		unsigned char *site = make(s, 0);
		int wrong = 0;

		for (int i = 0; i < 28; i++) {
			mprotect(site - SITE_AT, 4096, PROT_READ | PROT_WRITE);
			memset(site, 0xcc, SITE_MAX);
			put_site(site, i % 4 ? (int)s : i / 4 % SHAPES, numbers[i % 3]);
			mprotect(site - SITE_AT, 4096, PROT_READ | PROT_EXEC);
			for (int j = 0; j < 40; j++)
				wrong += call_site(site, numbers[i % 3], 0, 0, 0) != raw(numbers[i % 3], 0, 0, 0);
		}
		printf("%s: %d wrong\n", shape_names[s], wrong);
	}
}

CASE(write_xor_execute) { flip(written_site); }
CASE(write_xor_execute_in_text) { flip(new_site); }

/* Code behind execute-only pages, as far as the machine has them. */
CASE(execute_only)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid);

		mprotect(site - SITE_AT, 4096, PROT_EXEC);
		warm(site, SYS_getgid);
		printf("%s: %d\n", shape_names[s], call_site(site, SYS_getgid, 0, 0, 0) == (long)getgid());
	}
}

/* One memory mapped twice: written through one mapping, run through the other. */
static void mapped_twice(int flags, const char *how)
{
	static const unsigned numbers[] = { SYS_getgid, SYS_getuid, SYS_getpid };
	int fd = memfd_create("code", 0), wrong = 0, seen = 0;

	must(fd >= 0 && !ftruncate(fd, 4096), "memfd_create");
	unsigned char *writable = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	unsigned char *code = mmap(0, 4096, PROT_READ | PROT_EXEC, flags, fd, 0), copy[SITE_AT + SITE_MAX], file[SITE_AT + SITE_MAX];
	must(writable != MAP_FAILED && code != MAP_FAILED, "mmap");
	for (int i = 0; i < 28; i++) {
		enum shape s = i % SHAPES;

		memset(writable, 0xcc, SITE_AT + SITE_MAX);
		put_site(writable + SITE_AT, s, numbers[i % 3]);
		memcpy(copy, writable, sizeof copy);
		for (int j = 0; j < 40; j++)
			wrong += call_site(code + SITE_AT, numbers[i % 3], 0, 0, 0) != raw(numbers[i % 3], 0, 0, 0);
		must(pread(fd, file, sizeof file, 0) == sizeof file, "pread");
		seen += memcmp(copy, writable, sizeof copy) || memcmp(copy, file, sizeof copy);
	}
	printf("%s: %d wrong results, %d times the memory changed\n", how, wrong, seen);
}

CASE(code_mapped_twice) { mapped_twice(MAP_SHARED, "shared"); }
CASE(code_mapped_twice_private) { mapped_twice(MAP_PRIVATE, "private"); }

/* Files keep what is in them when code mapped from them runs. */
CASE(code_in_files)
{
	static const int flags[] = { MAP_PRIVATE, MAP_SHARED };

	for (int i = 0; i < 2; i++) {
		char name[] = "/tmp/conform-XXXXXX";
		static unsigned char was[4096], is[4096];
		int fd = mkstemp(name), wrong = 0;

		EACH_SHAPE(s)
			put_site(was + SITE_AT + s * SITE_MAX, s, SYS_getgid);
		must(fd >= 0 && !unlink(name) && write(fd, was, 4096) == 4096, "a file");
		unsigned char *code = mmap(0, 4096, PROT_READ | PROT_EXEC, flags[i], fd, 0);
		must(code != MAP_FAILED, "mmap");
		EACH_SHAPE(s) {
			warm(code + SITE_AT + s * SITE_MAX, SYS_getgid);
			wrong += call_site(code + SITE_AT + s * SITE_MAX, SYS_getgid, 0, 0, 0) != (long)getgid();
		}
		must(pread(fd, is, 4096, 0) == 4096, "pread");
		printf("%s: %d wrong, the file %s\n", i ? "shared" : "private", wrong, memcmp(was, is, 4096) ? "changed" : "is the same");
	}
}

/* A program that reads its own code sees what it wrote there. */
CASE(code_read_back)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid), was[SITE_MAX];

		memcpy(was, site, SITE_MAX);
		warm(site, SYS_getgid);
		printf("%s: %s\n", shape_names[s], memcmp(was, site, SITE_MAX) ? "changed" : "the same");
	}
}

CASE(code_read_back_by_system_calls)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid), was[SITE_MAX], is[3][SITE_MAX] = { 0 };
		int p[2], mem = open("/proc/self/mem", O_RDONLY);
		struct iovec local = { is[2], SITE_MAX }, remote = { site, SITE_MAX };

		memcpy(was, site, SITE_MAX);
		warm(site, SYS_getgid);
		must(!pipe(p) && write(p[1], site, SITE_MAX) == SITE_MAX && read(p[0], is[0], SITE_MAX) == SITE_MAX, "a pipe");
		must(mem >= 0 && pread(mem, is[1], SITE_MAX, (off_t)site) == SITE_MAX, "/proc/self/mem");
		must(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == SITE_MAX, "process_vm_readv");
		close(mem), close(p[0]), close(p[1]);
		printf("%s: write %s, /proc/self/mem %s, process_vm_readv %s\n", shape_names[s], memcmp(was, is[0], SITE_MAX) ? "changed" : "same",
		       memcmp(was, is[1], SITE_MAX) ? "changed" : "same", memcmp(was, is[2], SITE_MAX) ? "changed" : "same");
	}
}

/* Sites that some threads run while others read them. */
enum { READ_SITES = 60, RUNNERS = 2, READERS = 2 };

static unsigned char *read_sites[READ_SITES], read_code[READ_SITES][SITE_MAX];
static volatile int reading, wrong_reads, wrong_runs;

static void *run_sites(void *unused)
{
	for (int i = 0; i < READ_SITES; i++)
		for (int j = 0; j < 200; j++)
			if (call_site(read_sites[i], SYS_getgid, 0, 0, 0) != (long)getgid())
				__atomic_add_fetch(&wrong_runs, 1, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&reading, 1, __ATOMIC_RELAXED);
	return 0;
}

static void *read_sites_meanwhile(void *unused)
{
	for (int i = 0; reading; i = (i + 1) % READ_SITES)
		if (memcmp(read_sites[i], read_code[i], SITE_MAX))
			__atomic_add_fetch(&wrong_reads, 1, __ATOMIC_RELAXED);
	return 0;
}

CASE(code_read_while_it_runs)
{
	pthread_t threads[RUNNERS + READERS];

	for (int i = 0; i < READ_SITES; i++) {
		read_sites[i] = new_site(i % SHAPES, SYS_getgid);
		memcpy(read_code[i], read_sites[i], SITE_MAX);
	}
	reading = RUNNERS;
	for (int i = 0; i < RUNNERS + READERS; i++)
		must(!pthread_create(&threads[i], 0, i < RUNNERS ? run_sites : read_sites_meanwhile, 0), "pthread_create");
	for (int i = 0; i < RUNNERS + READERS; i++)
		pthread_join(threads[i], 0);
	printf("%d wrong results, %d different bytes\n", wrong_runs, wrong_reads);
}

/* Compares the text of the program and of its libraries with their files, as a
 * program does that checks itself. */
static int texts, different;

static int compare_text(struct dl_phdr_info *info, size_t size, void *unused)
{
	const char *name = *info->dlpi_name ? info->dlpi_name : "/proc/self/exe";
	int fd = open(name, O_RDONLY);

	for (int i = 0; fd >= 0 && i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];

		if (h->p_type != PT_LOAD || !(h->p_flags & PF_X))
			continue;
		char *file = mmap(0, h->p_filesz + h->p_offset % 4096, PROT_READ, MAP_PRIVATE, fd, h->p_offset - h->p_offset % 4096);
		must(file != MAP_FAILED, "mmap");
		texts++;
		different += !!memcmp(file + h->p_offset % 4096, (char *)info->dlpi_addr + h->p_vaddr, h->p_filesz);
	}
	close(fd);
	return 0;
}

CASE(own_text)
{
	for (int i = 0; i < 300; i++)
		(long)getgid();
	dl_iterate_phdr(compare_text, 0);
	printf("%d texts, %d different from their files\n", texts, different);
}

/* A site that has run is copied, as it looks by then, and goes on differently. */
CASE(copied_code)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid), *copy = map(4096, PROT_READ | PROT_WRITE | PROT_EXEC), code[SITE_MAX];
		size_t n = put_site(code, s, SYS_getgid);

		warm(site, SYS_getgid);
		memcpy(copy + 100, site, n - 1);
		memcpy(copy + 100 + n - 1, "\x48\xff\xc0\xc3", 4); /* inc %rax; ret */
		warm(copy + 100, SYS_getgid);
		printf("%s: %d\n", shape_names[s], call_site(copy + 100, SYS_getgid, 0, 0, 0) == (long)getgid() + 1);
	}
}

CASE(moved_code)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid);

		warm(site, SYS_getgid);
		for (int i = 0; i < 3; i++) {
			unsigned char *moved = mremap(site - SITE_AT, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, map(4096, PROT_NONE));
			must(moved != MAP_FAILED, "mremap");
			site = moved + SITE_AT;
			warm(site, SYS_getgid);
		}
		printf("%s: %d\n", shape_names[s], call_site(site, SYS_getgid, 0, 0, 0) == (long)getgid());
	}
}

/* Memory that is given back and comes again as it was in the file. */
CASE(discarded_code)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid), code[SITE_MAX];
		int wrong = 0;
		size_t n = put_site(code, s, SYS_getgid);

		for (int i = 0; i < 4; i++) {
			warm(site, SYS_getgid);
			madvise(site - SITE_AT, 4096, MADV_DONTNEED);
			wrong += !!memcmp(code, site, n);
			warm(site, SYS_getgid);
			wrong += call_site(site, SYS_getgid, 0, 0, 0) != (long)getgid();
		}
		printf("%s: %d wrong\n", shape_names[s], wrong);
	}
}

/* Other code where a site was that has run. */
CASE(replaced_code)
{
	unsigned char *site = new_site(0, SYS_getgid);
	int wrong = 0;

	for (int i = 0; i < 40; i++) {
		unsigned char *other = new_site(i % SHAPES, i % 3 ? SYS_getuid : SYS_getgid);

		must(mremap(other - SITE_AT, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, site - SITE_AT) != MAP_FAILED, "mremap");
		warm(site, i % 3 ? SYS_getuid : SYS_getgid);
		wrong += call_site(site, i % 3 ? SYS_getuid : SYS_getgid, 0, 0, 0) != (i % 3 ? (int)getuid() : (long)getgid());
	}
	printf("%d wrong\n", wrong);
}

/* Children run the sites that the parent has run; each from each shape of fork. */
CASE(forked_code)
{
	unsigned char *sites[SHAPES];

	EACH_SHAPE(s) {
		sites[s] = new_site(s, SYS_getuid);
		warm(sites[s], SYS_getuid);
	}
	EACH_SHAPE(s) {
		unsigned char *fork_site = new_site(s, SYS_fork);
		int status, good = 0;

		for (int i = 0; i < 5; i++) {
			pid_t pid = call_site(fork_site, SYS_fork, 0, 0, 0);

			if (!pid) {
				int wrong = 0;
				EACH_SHAPE(t)
					for (int j = 0; j < 40; j++)
						wrong += call_site(sites[t], SYS_getuid, 0, 0, 0) != (long)getuid();
				_exit(wrong ? 1 : 0);
			}
			waitpid(pid, &status, 0);
			good += WIFEXITED(status) && !WEXITSTATUS(status);
		}
		printf("%s: %d of 5 children\n", shape_names[s], good);
	}
}

/* A child goes on while its parent has ended, with code that ran before. */
CASE(child_outlives_its_parent)
{
	unsigned char *site = new_site(MOV_EAX, SYS_getuid);
	int p[2];
	char c;

	warm(site, 0);
	must(!pipe(p), "pipe");
	pid_t pid = fork();
	if (!pid) {
		pid_t grandchild = fork();
		if (grandchild)
			_exit(0);
		warm(site, 0);
		for (int i = 0; i < 1000; i++)
			call_site(site, 0, 0, 0, 0);
		must(write(p[1], "x", 1) == 1, "write");
		_exit(0);
	}
	waitpid(pid, 0, 0);
	printf("%zd\n", read(p[0], &c, 1));
}

/* Restoring of registers by the return from a signal handler is found by its bytes. */
#include <execinfo.h>

static int frames_found;

static void unwind(int sig)
{
	void *frames[32];
	int n = backtrace(frames, 32);

	frames_found = n >= 4;
}

__attribute__((noinline)) static void raise_it(void)
{
	raise(SIGUSR1);
	__asm__ volatile("");
}

static const unsigned char *restorer;
static int returned_from;

static void see_restorer(int sig)
{
	restorer = __builtin_return_address(0);
	returned_from++;
}

CASE(reading_the_return_from_a_handler)
{
	static const unsigned char usual[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05};

	signal(SIGUSR1, see_restorer);
	for (int i = 0; i < 200; i++)
		raise_it();
	printf("%d ", !memcmp(restorer, usual, sizeof usual));
	for (int i = 0; i < 200; i++)
		raise_it();
	printf("%d %d\n", !memcmp(restorer, usual, sizeof usual), returned_from);
}

CASE(unwinding_through_a_handler)
{
	signal(SIGUSR1, unwind);
	for (int i = 0; i < 200; i++)
		raise_it();
	printf("%d\n", frames_found);
}

/* Text that others write to: by the second time the page is the program's own. */
CASE(writing_text_from_outside)
{
	static const int nrs[] = {SYS_getppid, SYS_gettid, SYS_getpid, SYS_getpgid};
	int mem = open("/proc/self/mem", O_RDWR);
	unsigned char *site = new_site(MOV_EAX, SYS_getpid);

	must(mem >= 0, "/proc/self/mem");
	for (int i = 0; i < 4; i++) {
		warm(site, 0);
		ssize_t n = pwrite(mem, &nrs[i], sizeof nrs[i], (off_t)(site + 1));
		printf("%zd %d\n", n, call_site(site, 0, 0, 0, 0) == raw(nrs[i], 0, 0, 0));
	}
}
