/* Faults: what the handler is told, what kills, and that the program goes on. */
#include "conform.h"

static sigjmp_buf back;
static const char *base; /* what addresses are told relative to */
static const void *site; /* the instruction that faults */

static const char *near(char *text, const void *p, const void *from)
{
	long d = (const char *)p - (const char *)from;

	if (from && d > -65536 && d < 65536)
		sprintf(text, "base%+ld", d);
	else
		sprintf(text, "%p", p);
	return text;
}

static int details;

static void tell(int sig, siginfo_t *info, void *context)
{
	static char addr[32], rip[32], more[96];
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;

	if (info->si_addr == (void *)g[REG_RIP])
		strcpy(addr, "instruction");
	else
		near(addr, info->si_addr, base);
	near(rip, (void *)g[REG_RIP], site);
	if (details) {
		static char cr2[32];

		near(cr2, (void *)g[REG_CR2], base);
		snprintf(more, sizeof more, " trapno=%lld err=%#llx cr2=%s", g[REG_TRAPNO], g[REG_ERR], g[REG_TRAPNO] == 14 ? cr2 : "-");
	}
	printf("SIG%s code %d addr %s rip %s%s\n", NAME(sig), info->si_code, addr, site ? rip : "-", details ? more : "");
	siglongjmp(back, 1);
}

static void catch_all(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	static char stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };

	sigaltstack(&alternate, 0);
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
		on(signals[i], tell, SA_ONSTACK);
}

/* Runs code that may fault, and says what its fault was. */
#define TRY(what, ...) \
	do { \
		printf("%s: ", what); \
		if (!sigsetjmp(back, 1)) { \
			__VA_ARGS__; \
			puts("no fault"); \
		} \
	} while (0)

#define WRITE(p) (*(volatile char *)(p) = 1)
#define READ(p) ((void)*(volatile char *)(p))
#define CALL(p) (((void (*)(void))(p))())

static void memory_faults(void)
{
	char *p = map(8 * 4096, PROT_READ | PROT_WRITE);
	char *gone = map(4096, PROT_READ);

	munmap(gone, 4096);
	mprotect(p + 4096, 4096, PROT_READ);
	mprotect(p + 2 * 4096, 4096, PROT_NONE);
	mprotect(p + 3 * 4096, 4096, PROT_READ | PROT_EXEC);
	base = 0;
	TRY("read null", READ(0));
	TRY("write null", WRITE(0));
	TRY("read at 16", READ(16));
	base = p;
	TRY("write read-only", WRITE(p + 4096 + 5));
	TRY("read none", READ(p + 2 * 4096));
	TRY("write none", WRITE(p + 2 * 4096 + 4095));
	TRY("write code", WRITE(p + 3 * 4096));
	TRY("call data", CALL(p + 8));
	TRY("call none", CALL(p + 2 * 4096));
	TRY("read across into none", (void)*(volatile long *)(p + 2 * 4096 - 4));
	base = gone;
	TRY("read unmapped", READ(gone + 3));
	TRY("call unmapped", CALL(gone + 3));
	base = 0;
	TRY("call null", CALL(0));
	TRY("read kernel", READ(0xffff800000000000));
	TRY("write kernel", WRITE(0xffffffff81000000));
	TRY("call kernel", CALL(0xffffffff81000000));
	TRY("read non-canonical", READ(0x800000000000));
	TRY("read non-canonical 2", READ(0x8877665544332211));
	TRY("read top", READ(0x7ffffffff000));
	TRY("last page", READ(0xfffffffffffff000));
}

CASE(memory)
{
	catch_all();
	for (int i = 0; i < 2; i++)
		memory_faults();
}

CASE(memory_details)
{
	catch_all();
	details = 1;
	memory_faults();
}

CASE(wild_jumps)
{
	catch_all();
	TRY("non-canonical", CALL(0x800000000000));
	TRY("non-canonical 2", CALL(0x8877665544332211));
	TRY("kernel", CALL(0xffffffff81000000));
	TRY("between vsyscalls", CALL(0xffffffffff600001));
	TRY("end of the vsyscall page", CALL(0xffffffffff600fff));
	TRY("below the top", CALL(0x7fffffffe000));
	TRY("high but possible", CALL(0x712345678000));
}

CASE(file_mappings)
{
	char name[] = "/tmp/conform-XXXXXX";
	int fd = mkstemp(name);
	char *p;

	must(fd >= 0 && !unlink(name) && !ftruncate(fd, 6000), "a file");
	p = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED, "mmap");
	catch_all();
	base = p;
	TRY("inside", WRITE(p + 4096));
	TRY("rest of the last page", WRITE(p + 6001));
	TRY("past the end", READ(p + 2 * 4096 + 7));
	must(!ftruncate(fd, 0), "ftruncate");
	TRY("after truncation", READ(p + 9));
	must(!ftruncate(fd, 16384), "ftruncate");
	TRY("after growth", WRITE(p + 3 * 4096));
	p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 16384);
	base = p;
	TRY("private past the end", WRITE(p));
}

CASE(instructions)
{
	catch_all();
	/* The address of the instruction is in site; %= makes labels unique. */
#define FAULTING(what, instruction, ...) \
	TRY(what, __asm__ volatile("lea 1f(%%rip),%%rax\n mov %%rax,%0\n 1: " instruction \
				   : "=m"(site)::"rax", "rcx", "rdx", "memory", ##__VA_ARGS__))
	for (int i = 0; i < 2; i++) {
		FAULTING("ud2", "ud2");
		base = site;
		FAULTING("ud2 again", "ud2");
		FAULTING("int3", "int3");
		FAULTING("int $3", ".byte 0xcd,3");
		FAULTING("icebp", ".byte 0xf1");
		FAULTING("int $4", "int $4");
		FAULTING("int $0x81", "int $0x81");
		FAULTING("hlt", "hlt");
		FAULTING("cli", "cli");
		FAULTING("in", "in $0x80,%%al");
		FAULTING("rdmsr", "rdmsr");
		FAULTING("mov cr0", "mov %%cr0,%%rax");
		FAULTING("lock on a register", ".byte 0xf0,0x89,0xc0");
		FAULTING("invalid opcode", ".byte 0x06");
		FAULTING("misaligned movaps", "movaps 1(%%rsp),%%xmm0", "xmm0");
		FAULTING("non-canonical stack", "mov %%rsp,%%rdx\n mov $0x8000000000000000,%%rcx\n mov %%rcx,%%rsp\n push %%rax\n");
		base = 0;
	}
#undef FAULTING
}

static void unmask_sse(void)
{
	unsigned mxcsr = 0x1f80 & ~0x200; /* division by zero */

	__asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

CASE(arithmetic)
{
	volatile int zero = 0, one = 1;
	volatile double none = 0, some = 1;
	volatile short all = 0x37b; /* x87: division by zero unmasked */

	catch_all();
	for (int i = 0; i < 2; i++) {
		base = 0;
		TRY("integer", one = one / zero);
		one = INT32_MIN;
		zero = -1;
		TRY("overflow", one = one / zero);
		one = 1, zero = 0;
		TRY("sse masked", some = some / none);
		some = 1;
		TRY("sse", unmask_sse(); some = some / none);
		some = 1;
		TRY("after a handler the mask is back", some = some / none);
		TRY("sse invalid", { unsigned m = 0x1f00; __asm__ volatile("ldmxcsr %0" ::"m"(m)); none = none / 0.0; });
		none = 0, some = 1;
		TRY("x87", { __asm__ volatile("fldcw %0\n fldz\n fld1\n fdivp %%st,%%st(1)\n fldz\n fld1\n fdiv %%st(1),%%st\n fwait\n" ::"m"(all)); });
		__asm__ volatile("fninit");
	}
}

/* With AC set even the handler may access aligned memory only. */
static volatile int misaligned, misaligned_code;

static void clear_ac(int sig, siginfo_t *info, void *context)
{
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)AC;
	misaligned++;
	misaligned_code = info->si_code;
}

CASE(alignment_check)
{
	static char buffer[64] __attribute__((aligned(64)));

	on(SIGBUS, clear_ac, 0);
	for (int i = 0; i < 10; i++)
		__asm__ volatile("pushfq\n orl $0x40000,(%%rsp)\n popfq\n movl 1(%0),%%eax\n" ::"r"(buffer) : "rax", "memory", "cc");
	printf("%d faults, code %d\n", misaligned, misaligned_code);
}

/* A thousand faults that the handler repairs. */
static char *page;
static int repaired;

static void repair(int sig, siginfo_t *info, void *context)
{
	repaired++;
	mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

CASE(repaired)
{
	page = map(4096, PROT_NONE);
	on(SIGSEGV, repair, 0);
	for (int i = 0; i < 1000; i++) {
		page[i] = i;
		if (page[i] != (char)i)
			puts("memory is wrong");
		mprotect(page, 4096, i % 2 ? PROT_NONE : PROT_READ);
	}
	printf("%d repaired\n", repaired);
}

/* Recursion until the stack ends; the handler has a stack of its own. */
static volatile int for_ever = 1;

__attribute__((noinline)) static int recurse(int n)
{
	volatile char frame[4000];

	frame[0] = n;
	if (!for_ever)
		return 0;
	return recurse(n + 1) + frame[0];
}

static void overflowed(int sig, siginfo_t *info, void *context) { siglongjmp(back, 1); }

CASE(stack_overflow)
{
	catch_all();
	on(SIGSEGV, overflowed, SA_ONSTACK);
	for (volatile int i = 0; i < 3; i++) {
		if (!sigsetjmp(back, 1))
			recurse(0);
		puts("overflow caught");
	}
}

/* The libOS's memory, when it shares the program's addresses, is not there. */
CASE(host_addresses_read)
{
	catch_all();
	TRY("0x60001000", READ(0x60001000));
	TRY("0xc000000000", READ(0xc000000000));
	TRY("0x7fffffff0000", READ(0x7fffffff0000));
}

CASE(host_addresses_write)
{
	catch_all();
	TRY("0x60001000", WRITE(0x60001000));
}

CASE(host_addresses_system_calls)
{
	int p[2];

	must(!pipe(p), "pipe");
	printf("write %s\n", strerrorname_np(-raw(SYS_write, p[1], 0x60001000, 16)));
	printf("write heap %s\n", strerrorname_np(-raw(SYS_write, p[1], 0xc000000000, 16)));
	must(write(p[1], "0123456789abcdef", 16) == 16, "write");
	printf("read %s\n", strerrorname_np(-raw(SYS_read, p[0], 0x60001000, 16)));
	printf("mprotect %s\n", strerrorname_np(-raw(SYS_mprotect, 0x60001000, 4096, PROT_READ)));
}

static void map_there(uint64_t where)
{
	char *p = mmap((void *)where, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	printf("%#lx: ", where);
	if (p == MAP_FAILED)
		puts(strerrorname_np(errno));
	else if (p != (char *)where) /* kernels before 4.17 take it for a hint */
		puts("elsewhere");
	else
		TRY("mapped", memset(p, 0x55, 1 << 20); munmap(p, 1 << 20));
}

CASE(fixed_mappings)
{
	static const uint64_t where[] = { 0x10000,	  0x400000,	   0x70000000,	   0x200000000,	   0xb000000000,
					  0x20000000000,  0x500000000000, 0x0,		   0x300000000000 };
	catch_all();
	for (unsigned i = 0; i < sizeof where / sizeof *where; i++)
		if (where[i])
			map_there(where[i]);
}

CASE(fixed_mappings_over_the_host)
{
	catch_all();
	map_there(0x60000000);
	map_there(0xc000000000);
	char *p = mmap((void *)0x60000000, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	base = p;
	printf("fixed: %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "mapped");
	TRY("touch", WRITE(0x60000000));
	TRY("touch text", WRITE(0x60001000));
	printf("munmap: %d\n", munmap((void *)0x60000000, 64 << 20));
	printf("still here: %d\n", (long)getgid() == raw(SYS_getgid, 0, 0, 0));
}

CASE(fixed_mappings_high)
{
	catch_all();
	map_there(0x550000000000);
	map_there(0x600000000000);
	map_there(0x700000000000);
}

/* What kills when nobody handles it. */
CASE(fatal_null) { READ(0); }
CASE(fatal_write_text) { WRITE(run_fatal_null); }
CASE(fatal_jump_null) { CALL(0); }
CASE(fatal_jump_kernel) { CALL(0xffffffff81000000); }
CASE(fatal_jump_non_canonical) { CALL(0x8877665544332211); }
CASE(fatal_ud2) { __asm__ volatile("ud2"); }
CASE(fatal_int3) { __asm__ volatile("int3"); }
CASE(fatal_hlt) { __asm__ volatile("hlt"); }
CASE(fatal_trap_flag) { __asm__ volatile("pushfq\n orl $0x100,(%%rsp)\n popfq\n nop\n nop" ::: "memory"); }
CASE(fatal_stack_overflow) { recurse(0); }
CASE(fatal_division)
{
	volatile int zero = 0, some = 7;

	some = some / zero;
}

CASE(fatal_while_blocked)
{
	sigset_t all;

	catch_all();
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, 0);
	READ(0);
}

CASE(fatal_while_ignored)
{
	signal(SIGSEGV, SIG_IGN);
	READ(0);
}

/* The handler's frame has no place to be. */
CASE(fatal_no_stack_for_the_handler)
{
	on(SIGSEGV, tell, 0);
	__asm__ volatile("xor %%esp,%%esp\n push %%rax" ::: "memory");
}

CASE(fatal_abort) { abort(); }

CASE(fatal_in_a_thread)
{
	pthread_t t;

	pthread_create(&t, 0, (void *(*)(void *))case_fatal_null.run, 0);
	pthread_join(t, 0);
}

/* A child's death is the child's. */
CASE(fatal_in_a_child)
{
	for (int i = 0; i < 3; i++) {
		int status;
		pid_t pid = fork();

		if (!pid)
			READ(0);
		waitpid(pid, &status, 0);
		printf("killed by %s\n", WIFSIGNALED(status) ? NAME(WTERMSIG(status)) : "nothing");
	}
}
