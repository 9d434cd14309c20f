#include "stress.h"

#include <stdarg.h>

volatile int stop, own_gs, same_place, middle, read_back, children;
const char *program;
const char *const count_names[COUNTS] = { "calls", "sites", "faults", "signals", "timers", "forks", "execs", "vforks", "spawns", "reads", "passes", "terms" };
static long counts[COUNTS];

void count(int what, long by) { __atomic_add_fetch(&counts[what], by, __ATOMIC_RELAXED); }

long counted(int what) { return __atomic_load_n(&counts[what], __ATOMIC_RELAXED); }

void fail(const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	int n = vsnprintf(text, sizeof text - 1, format, args);
	va_end(args);
	text[n++] = '\n';
	if (write(2, text, n) < 0)
		_exit(2);
	_exit(1);
}

void must(int ok, const char *what)
{
	if (!ok)
		fail("%s: %s", what, strerror(errno));
}

uint64_t rnd(void)
{
	static __thread uint64_t x;

	if (!x)
		x = syscall(SYS_gettid) * 0x9e3779b97f4a7c15;
	x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift, G. Marsaglia */
	return x;
}

void check(const void *code, int site, uint64_t rax, long want, uint64_t seed, uint64_t flags)
{
	struct state in, out;
	enum vectors v = vectors();

	fill(&in, seed, flags);
	in.gpr[RAX] = rax;
	probe(&in, &out, code, v);
	if (site < 0)
		in.flags = (in.flags & ~(uint64_t)ARITHMETIC) | (out.flags & ARITHMETIC);
	const char *difference = differs(&in, &out, v, site >= 0 && compares(site));
	if (difference)
		fail("%s: %s", site < 0 ? "computing" : shape_names[site], difference);
	if ((long)out.gpr[RAX] != want)
		fail("%s: call %lu gave %ld, not %ld", site < 0 ? "computing" : shape_names[site], rax, out.gpr[RAX], want);
	if (site < 0 && (in.gpr[RCX] != out.gpr[RCX] || in.gpr[R11] != out.gpr[R11]))
		fail("computing: rcx or r11 changed");
}

unsigned char *text(void *at, const void *code, size_t size)
{
	char name[] = "/tmp/stress-XXXXXX";
	int fd = mkstemp(name);

	must(fd >= 0 && !unlink(name) && write(fd, code, size) == (ssize_t)size, "a file");
	unsigned char *p = mmap(at, size, PROT_READ | PROT_EXEC, MAP_PRIVATE | (at ? MAP_FIXED : 0), fd, 0);
	must(p != MAP_FAILED, "mmap of text");
	close(fd);
	return p;
}

pthread_t spawn(void *(*f)(void *), void *arg)
{
	pthread_t t;

	errno = pthread_create(&t, 0, f, arg);
	must(!errno, "pthread_create");
	return t;
}

/* SIGTERM comes from outside, one at a time: each is answered. */
static void terminated(int sig)
{
	char text[32];

	count(TERMS, 1);
	int n = snprintf(text, sizeof text, "term %ld\n", counted(TERMS));
	if (write(1, text, n) != n)
		fail("write");
}

/* stress SECONDS [gs] [place] [middle] [read] [children] [calls]; stress child */
int main(int argc, char **argv)
{
	int only_calls = 0; /* no signals: whose delivery reloads all registers */
	struct sigaction term = { .sa_handler = terminated, .sa_flags = SA_RESTART };
	struct timespec end;

	program = argv[0];
	if (argc > 1 && strcmp(argv[1], "child") == 0)
		return child();
	for (int i = 2; i < argc; i++) {
		own_gs |= strcmp(argv[i], "gs") == 0;
		same_place |= strcmp(argv[i], "place") == 0;
		middle |= strcmp(argv[i], "middle") == 0;
		children |= strcmp(argv[i], "children") == 0;
		read_back |= strcmp(argv[i], "read") == 0;
		only_calls |= strcmp(argv[i], "calls") == 0;
	}
	/* So that each of the calls has a result of its own. */
	must(!setresgid(4321, 0, 0) && !setresuid(1234, 0, 0), "setresuid");
	sigaction(SIGTERM, &term, 0);
	prepare_handlers();
	start_calls();
	if (!only_calls) {
		start_memory();
		start_signals();
		start_others();
	}
	if (write(1, "ready\n", 6) != 6)
		fail("write");
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += argc > 1 ? atoi(argv[1]) : 1;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, 0))
		;
	/* Who sends SIGTERM sends no more when standard input ends. */
	if (write(1, "stopping\n", 9) != 9)
		fail("write");
	while (read(0, &(char){ 0 }, 1) > 0)
		;
	if (!only_calls)
		end_signals(); /* while all that get some still run */
	stop = 1;
	if (!only_calls) {
		end_others();
		end_memory();
		end_computing();
	}
	end_calls();
	printf("ok");
	for (int i = 0; i < COUNTS; i++) {
		if (!counts[i] && i != TERMS && (i != READS || read_back) && ((i != EXECS && i != VFORKS) || children) && (!only_calls || i <= SITES))
			fail("no %s", count_names[i]);
		printf(" %s=%ld", count_names[i], counts[i]);
	}
	puts("");
	return 0;
}
