/* Debuggers: the trap flag, and a child that traces its parent. (The parent, as
 * an instance's first program, is where an engine of its own executes it.) */
#include "conform.h"
#include <elf.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

/* Code that is stepped through: registers only, then a site, then a return. */
static unsigned char *stepped(enum shape s)
{
	unsigned char code[6 + SITE_MAX];

	memcpy(code, "\x48\xff\xc3\x48\xff\xcb", 6); /* inc %rbx; dec %rbx */
	return text(code, 6 + put_site(code + 6, s, SYS_getgid));
}

/* The trap flag, set by the program itself. */
static long first;
static char steps[512];

static void step(int sig, siginfo_t *info, void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
	long at = g[REG_RIP] - first;

	if (at < 0 || at > 64) /* outside */
		at = -1;
	if (strlen(steps) < sizeof steps - 20)
		sprintf(steps + strlen(steps), " %ld", at);
	if (strstr(steps, "-1 -1"))
		g[REG_EFL] &= ~(greg_t)TF;
}

CASE(trap_flag)
{
	on(SIGTRAP, step, 0);
	EACH_SHAPE(s) {
		unsigned char *code = stepped(s);

		for (int round = 0; round < 3; round++) {
			*steps = 0;
			first = (long)code;
			__asm__ volatile("sub $256,%%rsp\n pushfq\n orl $0x100,(%%rsp)\n popfq\n call *%%rdx\n nop\n nop\n nop\n add $256,%%rsp"
					 ::"d"(code), "a"(SYS_getgid) : "rcx", "r11", "memory", "cc", "rdi", "rsi");
			printf("%s:%s\n", shape_names[s], steps);
			warm(code, SYS_getgid);
		}
	}
}

/* Runs what a tracer does in a child; the parent, traced, runs what it is told. */
static void traced(void (*tracer)(pid_t), void (*tracee)(void))
{
	int go[2], done;
	char c;

	must(!pipe(go), "pipe");
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	pid_t parent = getpid(), child = fork();
	if (!child) {
		must(!ptrace(PTRACE_ATTACH, parent, 0, 0) && waitpid(parent, &done, __WALL) == parent, "attach");
		must(write(go[1], "x", 1) == 1, "write");
		tracer(parent);
		ptrace(PTRACE_DETACH, parent, 0, 0);
		_exit(0);
	}
	while (read(go[0], &c, 1) != 1)
		;
	tracee();
	waitpid(child, &done, 0);
}

static struct user_regs_struct get(pid_t pid)
{
	struct user_regs_struct r;

	must(!ptrace(PTRACE_GETREGS, pid, 0, &r), "PTRACE_GETREGS");
	return r;
}

static unsigned char *shared_sites[SHAPES];

/* Waits for the next stop; false when it is for good. */
static int stopped(pid_t pid, int request, int *sig)
{
	int status;

	if (ptrace(request, pid, 0, 0) || waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
		return 0;
	*sig = WSTOPSIG(status);
	return 1;
}

/* Lets the tracee run to its breakpoint, an int3 that follows from SIGTRAP. */
static void to_mark(pid_t pid)
{
	int sig;

	do
		must(stopped(pid, PTRACE_CONT, &sig), "to the mark");
	while (sig != SIGTRAP);
}

static void call_all(void)
{
	EACH_SHAPE(s) {
		__asm__ volatile("int3");
		call_site(shared_sites[s], SYS_getgid, 0, 0, 0);
	}
	__asm__ volatile("int3");
}

static void step_all(pid_t pid)
{
	EACH_SHAPE(s) {
		long at, begun = 0;
		int sig, n = 0;

		if (s == 0)
			to_mark(pid);
		printf("%s:", shape_names[s]);
		do {
			if (!stopped(pid, PTRACE_SINGLESTEP, &sig) || n++ > 100000) {
				puts(" lost");
				return;
			}
			at = get(pid).rip - (long)shared_sites[s];
			if (at >= 0 && at < 64) {
				begun = 1;
				printf(" %ld", at);
			}
		} while (!begun || (at >= 0 && at < 64));
		puts("");
		to_mark(pid);
	}
}

static void make_sites(void)
{
	EACH_SHAPE(s) {
		shared_sites[s] = stepped(s);
		warm(shared_sites[s], SYS_getgid);
	}
}

CASE(single_step)
{
	make_sites();
	traced(step_all, call_all);
	puts("and goes on");
}

/* A tracer at the system calls of its tracee. */
static void stop_all(pid_t pid)
{
	int sig;

	EACH_SHAPE(s) {
		to_mark(pid);
		for (int i = 0; i < 2; i++) {
			if (!stopped(pid, PTRACE_SYSCALL, &sig)) {
				puts("lost");
				return;
			}
			struct user_regs_struct r = get(pid);
			printf("%s %s: stop %d number %d rip %ld rax %s\n", shape_names[s], i ? "exit" : "entry", sig, r.orig_rax == SYS_getgid,
			       (long)r.rip - (long)shared_sites[s], (long)r.rax < 0 ? strerrorname_np(-r.rax) : "a result");
			if (!i && s % 2) { /* another number instead */
				r.orig_rax = SYS_getuid;
				must(!ptrace(PTRACE_SETREGS, pid, 0, &r), "PTRACE_SETREGS");
			}
			if (i) {
				r.rax = 4242;
				r.rbx ^= 0x5555;
				must(!ptrace(PTRACE_SETREGS, pid, 0, &r), "PTRACE_SETREGS");
			}
		}
	}
	to_mark(pid);
}

static void call_and_look(void)
{
	EACH_SHAPE(s) {
		struct state in, out;

		fill(&in, s, 0);
		in.gpr[RAX] = SYS_getgid;
		__asm__ volatile("int3");
		probe(&in, &out, shared_sites[s], vectors());
		printf("%s: %ld, rbx %#lx, ", shape_names[s], out.gpr[RAX] - (out.gpr[RAX] == (uint64_t)(long)getgid() ? (long)getgid() : 0),
		       in.gpr[RBX] ^ out.gpr[RBX]);
		out.gpr[RBX] = in.gpr[RBX];
		/* inc and dec set the flags */
		in.flags = (in.flags & ~(uint64_t)ARITHMETIC) | (out.flags & ARITHMETIC);
		printf("else %s\n", differs(&in, &out, vectors(), 0) ? "changed" : "the same");
	}
	__asm__ volatile("int3");
}

CASE(traced_system_calls)
{
	make_sites();
	traced(stop_all, call_and_look);
}

/* Breakpoints in sites that have run, as a debugger sets them. */
static void break_all(pid_t pid)
{
	int sig;

	EACH_SHAPE(s) {
		long at = (long)shared_sites[s] + 6, word;

		to_mark(pid);
		errno = 0;
		word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
		must(!errno, "PTRACE_PEEKTEXT");
		printf("%s: first bytes %s, ", shape_names[s], (word & 0xff) == 0xb8 || (word & 0xff) == 0x48 || (word & 0xff) == 0x0f ? "as written" : "others");
		must(!ptrace(PTRACE_POKETEXT, pid, at, (word & ~0xfful) | 0xcc), "PTRACE_POKETEXT");
		must(stopped(pid, PTRACE_CONT, &sig), "PTRACE_CONT");
		struct user_regs_struct r = get(pid);
		printf("stop %d at %+lld, ", sig, r.rip - at);
		must(!ptrace(PTRACE_POKETEXT, pid, at, word), "PTRACE_POKETEXT");
		r.rip = at;
		must(!ptrace(PTRACE_SETREGS, pid, 0, &r), "PTRACE_SETREGS");
		puts("goes on");
	}
	to_mark(pid);
}

CASE(breakpoints)
{
	make_sites();
	traced(break_all, call_and_look);
}

/* A tracer reads and writes the vector registers. */
static void exchange_vectors(pid_t pid)
{
	static unsigned char area[16384];
	struct iovec io = { area, sizeof area };

	to_mark(pid);
	must(!ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &io), "PTRACE_GETREGSET");
	struct user_fpregs_struct fp;
	must(!ptrace(PTRACE_GETFPREGS, pid, 0, &fp), "PTRACE_GETFPREGS");
	printf("xmm3 %#x and %#x\n", fp.xmm_space[12], *(unsigned *)(area + 160 + 48));
	fp.xmm_space[12] = 0x12345678;
	must(!ptrace(PTRACE_SETFPREGS, pid, 0, &fp), "PTRACE_SETFPREGS");
}

static void show_vector(void)
{
	unsigned was = 0xabcdef, is;

	__asm__ volatile("movd %1,%%xmm3\n int3\n movd %%xmm3,%0" : "=r"(is) : "r"(was) : "xmm3");
	printf("now %#x\n", is);
}

CASE(traced_vectors) { traced(exchange_vectors, show_vector); }

/* A tracer reads the x87 state: unused, in use, and unused again. */
static void show_x87(pid_t pid)
{
	for (int i = 0; i < 3; i++) {
		struct user_fpregs_struct fp;

		to_mark(pid);
		must(!ptrace(PTRACE_GETFPREGS, pid, 0, &fp), "PTRACE_GETFPREGS");
		printf("control %#x, status %#x, tags %#x, first %#x %#x\n", fp.cwd, fp.swd, fp.ftw, fp.st_space[1], fp.st_space[2]);
	}
}

static void use_x87(void)
{
	unsigned char *site = new_site(MOV_EAX, SYS_getgid);
	unsigned short control = 0x27f;

	warm(site, 0);
	__asm__ volatile("int3");
	__asm__ volatile("fldcw %0\n fld1" ::"m"(control));
	warm(site, 0);
	__asm__ volatile("int3");
	__asm__ volatile("fninit");
	warm(site, 0);
	__asm__ volatile("int3");
}

CASE(traced_x87) { traced(show_x87, use_x87); }

/* Calls of 32-bit programs while a tracer looks on. */
static void make_calls32(void)
{
	long ret, second = 0x1234;

	for (int i = 0; i < 2; i++) {
		__asm__ volatile("int $0x80" : "=a"(ret), "+S"(second) : "a"(20), "b"(0), "c"(0), "d"(0), "D"(0) : "memory", "r8", "r9", "r10", "r11");
		printf("%d, rsi %#lx\n", ret == getpid(), second);
		__asm__ volatile("int $0x80" : "=a"(ret), "+S"(second) : "a"(3), "b"(1000), "c"(0), "d"(0), "D"(0) : "memory", "r8", "r9", "r10", "r11");
		printf("%ld, rsi %#lx\n", ret, second);
	}
	fflush(stdout);
	__asm__ volatile("int3");
}

CASE(traced_int80) { traced((void (*)(pid_t))to_mark, make_calls32); }

/* A tracer stops a tracee that computes without system calls. */
static volatile int spinning = 1;

static void stop_spinning(pid_t pid)
{
	int status;

	for (int i = 0; i < 20; i++) {
		int sig;

		ptrace(PTRACE_CONT, pid, 0, 0);
		usleep(2000);
		kill(pid, SIGSTOP);
		must(waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status), "waitpid");
		if (i == 19) {
			must(stopped(pid, PTRACE_SINGLESTEP, &sig), "PTRACE_SINGLESTEP");
			printf("step: %d\n", sig);
		}
	}
	must(!ptrace(PTRACE_POKEDATA, pid, &spinning, 0), "PTRACE_POKEDATA");
}

static void spin(void)
{
	while (spinning)
		;
	puts("stopped spinning");
}

CASE(stop_a_loop) { traced(stop_spinning, spin); }

/* A debugger comes and goes, and writes to the same page of text each time. */
CASE(pokes)
{
	static const int numbers[] = { SYS_gettid, SYS_getppid, SYS_getpid, SYS_getpgid, SYS_getppid };
	const unsigned rounds = sizeof numbers / sizeof *numbers;
	unsigned char *site = new_site(MOV_EAX, SYS_getpid);
	int go[2], done[2], status;
	pid_t parent = getpid();
	char c = 0;

	must(!pipe(go) && !pipe(done), "pipe");
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	pid_t child = fork();
	if (!child)
		close(go[1]);
	for (unsigned i = 0; !child && i < rounds; i++) {
		if (read(go[0], &c, 1) != 1)
			_exit(1);
		must(!ptrace(PTRACE_ATTACH, parent, 0, 0) && waitpid(parent, &status, __WALL) == parent, "attach");
		long code = ptrace(PTRACE_PEEKTEXT, parent, site, 0);
		code = (code & ~0xffffffff00L) | (long)numbers[i] << 8;
		must(!ptrace(PTRACE_POKETEXT, parent, site, code) && !ptrace(PTRACE_DETACH, parent, 0, 0), "poke");
		must(write(done[1], "x", 1) == 1, "write");
	}
	if (!child)
		_exit(0);
	for (unsigned i = 0; i < rounds; i++) {
		warm(site, 0);
		must(write(go[1], "x", 1) == 1, "write");
		while (read(done[0], &c, 1) != 1)
			;
		printf("%u: %d\n", i, call_site(site, 0, 0, 0, 0) == raw(numbers[i], 0, 0, 0));
	}
	must(waitpid(child, &status, 0) == child, "waitpid");
}
