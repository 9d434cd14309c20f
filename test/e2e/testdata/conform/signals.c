/* Signals and system calls: restarting, where the handler sees the program, seccomp. */
#include "conform.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/time.h>

static const unsigned char *site;
static volatile int returned;
static volatile long rip_offset, rax_seen;
static int pipe_of_handler = -1;

static void handler(int sig, siginfo_t *info, void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;

	if ((uint64_t)g[REG_RIP] - (uint64_t)site >= SITE_MAX)
		return; /* before the call, or after it */
	rip_offset = g[REG_RIP] - (greg_t)site;
	rax_seen = g[REG_RAX];
	if (pipe_of_handler >= 0)
		must(write(pipe_of_handler, "x", 1) == 1, "write");
}

static void *signaller(void *arg)
{
	pthread_t target = *(pthread_t *)arg;

	while (!returned) { /* the first may come before the call has begun */
		usleep(20000);
		pthread_kill(target, SIGUSR1);
	}
	return 0;
}

/* Makes a call through a site that has run often, that a signal interrupts while it blocks. */
static long interrupted(enum shape s, long nr, long a, long b, long c)
{
	static pthread_t self, other;
	unsigned char *p = new_site(s, nr);
	long ret;

	self = pthread_self();
	returned = 0;
	site = p;
	for (int i = 0; i < 100; i++) /* warm by calls that fail */
		call_site(p, nr, -1, 0, 0);
	must(!pthread_create(&other, 0, signaller, &self), "pthread_create");
	ret = call_site(p, nr, a, b, c);
	returned = 1;
	pthread_join(other, 0);
	return ret;
}

CASE(interrupted_calls)
{
	on(SIGUSR1, handler, 0);
	EACH_SHAPE(s) {
		int p[2];
		char c;

		must(!pipe(p), "pipe");
		long ret = interrupted(s, SYS_read, p[0], (long)&c, 1);
		printf("%s: %s, the handler saw rip %s, rax %s\n", shape_names[s], ret < 0 ? strerrorname_np(-ret) : "data",
		       rip_offset == (long)syscall_offset(s) + 2 ? "behind the call" : "elsewhere", strerrorname_np(-rax_seen));
	}
}

CASE(restarted_calls)
{
	on(SIGUSR1, handler, SA_RESTART);
	EACH_SHAPE(s) {
		int p[2];
		char c = 0;

		must(!pipe(p), "pipe");
		pipe_of_handler = p[1];
		long ret = interrupted(s, SYS_read, p[0], (long)&c, 1);
		printf("%s: %ld %c, the handler saw rip %s, rax %s\n", shape_names[s], ret, c,
		       rip_offset == (long)syscall_offset(s) ? "at the call" : "elsewhere", rax_seen == SYS_read ? "the number" : "something else");
	}
}

/* Stopped and continued while it sleeps: restart_syscall with the rest of the time. */
CASE(continued_sleep)
{
	EACH_SHAPE(s) {
		unsigned char *p = new_site(s, SYS_nanosleep);
		struct timespec request = { .tv_nsec = 150 * 1000 * 1000 };
		pid_t self = getpid();
		int status;

		for (int i = 0; i < 100; i++)
			call_site(p, SYS_nanosleep, 0, 0, 0);
		pid_t child = fork();
		if (!child) {
			usleep(40000);
			kill(self, SIGSTOP);
			usleep(20000);
			kill(self, SIGCONT);
			_exit(0);
		}
		long ret = call_site(p, SYS_nanosleep, (long)&request, 0, 0);
		waitpid(child, &status, 0);
		printf("%s: %ld\n", shape_names[s], ret);
	}
}

/* A handler that never returns to the call. */
static sigjmp_buf out;

static void jump(int sig) { siglongjmp(out, 1); }

CASE(jump_out_of_a_call)
{
	struct itimerval soon = { .it_value = { .tv_usec = 20000 } };

	signal(SIGALRM, jump);
	EACH_SHAPE(s) {
		unsigned char *p = new_site(s, SYS_pause);
		volatile int times = 0;

		for (volatile int i = 0; i < 3; i++)
			if (!sigsetjmp(out, 1)) {
				setitimer(ITIMER_REAL, &soon, 0);
				call_site(p, SYS_pause, 0, 0, 0);
			} else
				times++;
		printf("%s: %d\n", shape_names[s], times > 0);
	}
}

/* Signals that a thread sends to itself arrive before the call returns. */
static volatile int own;

static void count_own(int sig) { own++; }

CASE(own_signals_are_at_once)
{
	signal(SIGUSR2, count_own);
	EACH_SHAPE(s) {
		unsigned char *p = new_site(s, SYS_tgkill);
		int late = 0;

		own = 0;
		for (int i = 0; i < 500; i++) {
			call_site(p, SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2);
			late += own != i + 1;
		}
		printf("%s: %d late\n", shape_names[s], late);
	}
}

/* Real-time signals are queued, in order. */
static volatile int next_value, disorder;

static void in_order(int sig, siginfo_t *info, void *context) { disorder += info->si_value.sival_int != next_value++; }

CASE(queued_signals)
{
	sigset_t set;

	on(SIGRTMIN, in_order, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	for (int i = 0; i < 100; i++) {
		sigprocmask(SIG_BLOCK, &set, 0);
		for (int j = 0; j < 20; j++)
			must(!sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = 20 * i + j }), "sigqueue");
		sigprocmask(SIG_UNBLOCK, &set, 0);
	}
	printf("%d, %d out of order\n", next_value, disorder);
}

/* Nested handlers, each on the same alternate stack above the other. */
static volatile int depth, deepest;

static void nested(int sig, siginfo_t *info, void *context)
{
	if (++depth < 5)
		raise(SIGUSR1);
	if (depth > deepest)
		deepest = depth;
	depth--;
}

CASE(nested_handlers)
{
	static char stack[1 << 17];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };

	sigaltstack(&alternate, 0);
	on(SIGUSR1, nested, SA_ONSTACK | SA_NODEFER);
	for (int i = 0; i < 200; i++) {
		deepest = 0;
		raise(SIGUSR1);
	}
	printf("%d %d\n", depth, deepest);
}

/* Timers interrupt a loop that makes no system call; registers stay as they were. */
static volatile int ticks;

static void tick(int sig, siginfo_t *info, void *context)
{
	ticks++;
	__asm__ volatile("pcmpeqd %%xmm0,%%xmm0\n pcmpeqd %%xmm15,%%xmm15\n fninit\n fld1\n xor %%r8d,%%r8d\n std\n cld" ::: "xmm0", "xmm15", "r8", "cc");
}

CASE(timer_interrupts_computing)
{
	struct itimerval often = { .it_value = { .tv_usec = 1000 }, .it_interval = { .tv_usec = 1000 } };
	unsigned char *loop = map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	struct state in, out_;
	int wrong = 0;

	on(SIGALRM, tick, SA_RESTART);
	setitimer(ITIMER_REAL, &often, 0);
	/* loop: sub $1,%rax; jnz loop; ret */
	memcpy(loop, "\x48\x83\xe8\x01\x75\xfa\xc3", 7);
	for (int i = 0; ticks < 100; i++) {
		fill(&in, i, 0);
		in.gpr[RAX] = 1000000;
		probe(&in, &out_, loop, vectors());
		in.flags = (in.flags & ~(uint64_t)ARITHMETIC) | ZF | PF;
		wrong += !!differs(&in, &out_, vectors(), 0) || out_.gpr[RCX] != in.gpr[RCX] || out_.gpr[R11] != in.gpr[R11];
	}
	printf("%d wrong\n", wrong);
}

/* A seccomp filter sees where the call was made, and its signal says so. */
static siginfo_t seen;
static volatile long seen_rip, seen_rax;

static void sigsys(int sig, siginfo_t *info, void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;

	seen = *info;
	seen_rip = g[REG_RIP];
	seen_rax = g[REG_RAX];
	g[REG_RAX] = 4711;
}

CASE(seccomp_trap)
{
	unsigned char *sites[SHAPES];
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getgid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP | 5),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { 4, code };

	EACH_SHAPE(s) {
		sites[s] = new_site(s, SYS_getgid);
		warm(sites[s], SYS_getgid);
	}
	on(SIGSYS, sigsys, 0);
	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), "seccomp");
	EACH_SHAPE(s) {
		long ret = call_site(sites[s], SYS_getgid, 0, 0, 0);
		char *behind = (char *)sites[s] + syscall_offset(s) + 2;

		printf("%s: returned %ld, code %d, errno %d, number %d, arch %d, address %d, rip %d, rax %d\n", shape_names[s], ret,
		       seen.si_code, seen.si_errno, seen.si_syscall == SYS_getgid, seen.si_arch == AUDIT_ARCH_X86_64,
		       seen.si_call_addr == behind, seen_rip == (long)behind, seen_rax == SYS_getgid);
	}
}

CASE(seccomp_instruction_pointer)
{
	unsigned char *sites[SHAPES];

	EACH_SHAPE(s) {
		sites[s] = new_site(s, SYS_getgid);
		warm(sites[s], SYS_getgid);
	}
	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges");
	EACH_SHAPE(s) {
		struct sock_filter code[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(uintptr_t)(sites[s] + syscall_offset(s) + 2), 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		struct sock_fprog filter = { 4, code };

		must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), "seccomp");
		printf("%s: %ld\n", shape_names[s], call_site(sites[s], SYS_getgid, 0, 0, 0));
	}
}
