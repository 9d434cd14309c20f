/* What few programs do, and what must then hit nobody but them. */
#include "conform.h"
#include <sys/socket.h>

static volatile long steps, stuck;
static volatile greg_t last_rip;

static void on_step(int sig, siginfo_t *info, void *context)
{
	greg_t rip = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	steps++;
	stuck = rip == last_rip ? stuck + 1 : 0;
	last_rip = rip;
	if (stuck > 1000) {
		puts("stuck");
		fflush(stdout);
		_exit(1);
	}
}

/* Steps over call sites that are warm in this very process. */
CASE(step_in_process)
{
	void *site[SHAPES];

	on(SIGTRAP, on_step, 0);
	EACH_SHAPE(s) {
		site[s] = new_site(s, SYS_getppid);
		warm(site[s], SYS_getppid);
	}
	EACH_SHAPE(s) {
		long got;

		steps = 0;
		__asm__ volatile("sub $128,%%rsp; pushfq; orl $0x100,(%%rsp); popfq; add $128,%%rsp" ::: "memory", "cc");
		got = call_site(site[s], SYS_getppid, 0, 0, 0);
		__asm__ volatile("sub $128,%%rsp; pushfq; andl $0xfffffeff,(%%rsp); popfq; add $128,%%rsp" ::: "memory", "cc");
		printf("%s: %s\n", shape_names[s], got == getppid() && steps > 5 ? "stepped" : "wrong");
	}
}

/* Where junction_run has its own code. Programs have nothing there. */
CASE(wild_jump_low)
{
	((void (*)(void))0x60001234)();
}

static volatile int enough;
static pid_t volatile computing;

static void *without_masks(void *unused)
{
	unsigned unmasked = 0;

	__asm__ volatile("ldmxcsr %0" ::"m"(unmasked));
	computing = syscall(SYS_gettid);
	while (!enough)
		syscall(SYS_getppid);
	return 0;
}

static void nothing(int sig, siginfo_t *info, void *context) {}

/* All floating point exceptions unmasked while signals come. */
CASE(exceptions_unmasked_in_calls)
{
	pthread_t t;

	on(SIGUSR1, nothing, 0);
	must(!pthread_create(&t, 0, without_masks, 0), "pthread_create");
	while (!computing)
		sched_yield();
	for (int i = 0; i < 100000; i++) {
		syscall(SYS_tgkill, getpid(), computing, SIGUSR1);
		if (i % 64 == 0)
			free(malloc(1 << 22)); /* work for the libOS */
	}
	enough = 1;
	must(!pthread_join(t, 0), "pthread_join");
	puts("goes on");
}

/* A read that cannot store what it reads leaves it where it is. */
static void read_badly(const char *what, int from, int to)
{
	char text[8];
	void *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(write(to, "hello", 5) == 5, "write");
	printf("%s: %zd", what, read(from, bad, 5));
	printf(" %s", strerror(errno));
	must(write(to, "x", 1) == 1, "write");
	printf(", %zd left\n", read(from, text, sizeof text));
}

CASE(failed_reads)
{
	int p[2], s[2];

	must(!pipe(p), "pipe");
	read_badly("pipe", p[0], p[1]);
	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, s), "socketpair");
	read_badly("socket", s[0], s[1]);
}
