/* State beside the plain registers: vectors and flags in signal frames, segment
 * bases, protection keys, and what other ways into the kernel there are. */
#include "conform.h"
#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/stat.h>
#include <sys/time.h>

static ucontext_t seen;
static struct _libc_fpstate seen_fp;
static uint64_t handler_flags;

static void keep(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	__asm__ volatile("pushfq\n popq %0" : "=r"(handler_flags));
	seen = *u;
	seen_fp = *u->uc_mcontext.fpregs;
	u->uc_mcontext.gregs[REG_RIP] += 2; /* over ud2 */
}

/* A piece of code that traps: the handler sees all registers as they were. */
static unsigned char *trapping(void)
{
	return text("\x0f\x0b\xc3", 3); /* ud2; ret */
}

CASE(registers_over_a_fault)
{
	struct state in, out;
	unsigned char *code = trapping();
	const char *difference = 0;

	on(SIGILL, keep, 0);
	for (int i = 0; i < 300 && !difference; i++) {
		fill(&in, i, i % 2 ? DF : 0);
		probe(&in, &out, code, vectors());
		difference = differs(&in, &out, vectors(), 0);
		if (out.gpr[RAX] != in.gpr[RAX] || out.gpr[RCX] != in.gpr[RCX] || out.gpr[R11] != in.gpr[R11])
			difference = "rax, rcx or r11";
	}
	printf("%s\n", difference ? difference : "nothing changed");
}

CASE(frame)
{
	struct state in, out;
	unsigned char *code = trapping();
	static const int order[] = { REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_RSP,
				     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	int wrong = 0;

	on(SIGILL, keep, 0);
	for (int i = 0; i < 100; i++) {
		fill(&in, i, DF);
		probe(&in, &out, code, vectors());
		for (int j = 0; j < GPRS; j++)
			wrong += j != RSP && seen.uc_mcontext.gregs[order[j]] != (greg_t)in.gpr[j];
		wrong += seen.uc_mcontext.gregs[REG_RIP] != (greg_t)code;
		wrong += !!memcmp(&seen_fp, in.fx, 28);
		wrong += !!memcmp((char *)&seen_fp + 32, in.fx + 32, 416 - 32);
	}
	printf("%d wrong\n", wrong);
	printf("flags %#llx, direction in the handler %d\n", seen.uc_mcontext.gregs[REG_EFL] & ~(greg_t)(ARITHMETIC | 0x10000),
	       !!(handler_flags & DF));
	unsigned *software = (unsigned *)((char *)&seen_fp + 464);
	printf("extended frame: magic %#x, features %#x\n", software[0], software[2] & 0xe7);
}

/* The handler changes the registers that the program continues with. */
static struct state wanted;

static void change(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	static const int order[] = { REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_RSP,
				     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	char *fp = (char *)u->uc_mcontext.fpregs;

	for (int i = 0; i < GPRS; i++)
		if (i != RSP)
			u->uc_mcontext.gregs[order[i]] = wanted.gpr[i];
	memcpy(fp, wanted.fx, 28);
	memcpy(fp + 32, wanted.fx + 32, 416 - 32);
	if (vectors() != SSE) {
		unsigned a, b, c, d;

		__cpuid_count(13, 2, a, b, c, d); /* where the high halves of the YMM registers are */
		for (int i = 0; i < 16; i++)
			memcpy(fp + b + 16 * i, wanted.zmm[i] + 16, 16);
		if (vectors() == AVX512) {
			__cpuid_count(13, 5, a, b, c, d);
			memcpy(fp + b, wanted.k, 64);
			__cpuid_count(13, 6, a, b, c, d);
			for (int i = 0; i < 16; i++)
				memcpy(fp + b + 32 * i, wanted.zmm[i] + 32, 32);
			__cpuid_count(13, 7, a, b, c, d);
			memcpy(fp + b, wanted.zmm[16], 16 * 64);
		}
	}
	u->uc_mcontext.gregs[REG_EFL] = wanted.flags;
	u->uc_mcontext.gregs[REG_RIP] += 2;
}

CASE(sigreturn_changes_registers)
{
	struct state in, out;
	unsigned char *code = trapping();

	on(SIGILL, change, 0);
	for (int i = 0; i < 100; i++) {
		fill(&in, i, 0);
		fill(&wanted, i + 1000, i % 2 ? DF : 0);
		wanted.gpr[R11] = in.gpr[R11]; /* the probe fills the red zone with it */
		probe(&in, &out, code, vectors());
		out.red_zone = 0;
		const char *difference = differs(&wanted, &out, vectors(), 0);
		if (difference) {
			puts(difference);
			return;
		}
	}
	puts("all changed");
}

/* x87, SSE and AVX in their initial state, which XSAVE does not write. */
CASE(initial_vectors)
{
	struct state in, out;

	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid);
		int wrong = 0;

		for (int i = 0; i < 300; i++) {
			fill(&in, i, 0);
			memset(in.zmm, 0, sizeof in.zmm);
			memset(in.fx + 32, 0, 384);
			memset(in.k, 0, sizeof in.k);
			memcpy(in.fx, "\x7f\x03\0\0\0", 5);
			memcpy(in.fx + 24, "\x80\x1f\0\0", 4);
			in.gpr[RAX] = SYS_getgid;
			probe(&in, &out, site, vectors());
			wrong += !!differs(&in, &out, vectors(), compares(s));
		}
		printf("%s: %d wrong\n", shape_names[s], wrong);
	}
}

/* A handler starts with the defaults, whatever it interrupted. */
static unsigned handler_mxcsr;
static unsigned short handler_control;

static void look(int sig, siginfo_t *info, void *context)
{
	__asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(handler_mxcsr), "=m"(handler_control));
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

CASE(handler_state)
{
	struct state in, out;
	uint16_t control = 0x0f7f;
	uint32_t mxcsr = 0xff80;

	on(SIGILL, look, 0);
	fill(&in, 1, 0);
	memcpy(in.fx, &control, 2);
	memcpy(in.fx + 24, &mxcsr, 4);
	probe(&in, &out, trapping(), vectors());
	printf("handler: MXCSR %#x, x87 control %#x; afterwards %s\n", handler_mxcsr, handler_control,
	       differs(&in, &out, vectors(), 0) ? "changed" : "unchanged");
}

static long arch_prctl(int code, unsigned long addr) { return syscall(SYS_arch_prctl, code, addr); }

CASE(fs_base)
{
	unsigned long own, got = 0, again = 0;

	must(!arch_prctl(ARCH_GET_FS, (long)&own), "ARCH_GET_FS");
	__asm__ volatile("rdfsbase %0" : "=r"(got));
	printf("get: %d\n", own == got);
	long set = raw(SYS_arch_prctl, ARCH_SET_FS, 0x12345000, 0);
	__asm__ volatile("rdfsbase %0" : "=r"(got));
	raw(SYS_sched_yield, 0, 0, 0);
	__asm__ volatile("rdfsbase %0\n wrfsbase %1" : "=&r"(again) : "r"(own));
	printf("set: %ld %#lx %#lx\n", set, got, again);
	printf("non-canonical: %ld\n", raw(SYS_arch_prctl, ARCH_SET_FS, 0x8000000000000000, 0));
}

CASE(gs_base)
{
	static int number = 42;
	unsigned long got = 0;
	int through = 0;

	printf("set: %ld\n", arch_prctl(ARCH_SET_GS, (long)&number));
	printf("get: %ld ", arch_prctl(ARCH_GET_GS, (long)&got));
	printf("%s\n", got == (unsigned long)&number ? "same" : "other");
	if (got == (unsigned long)&number)
		__asm__ volatile("movl %%gs:0,%0" : "=r"(through));
	printf("through it: %d\n", through);
}

CASE(gs_base_at_start)
{
	unsigned long got = 1;

	__asm__ volatile("rdgsbase %0" : "=r"(got));
	printf("%#lx\n", got);
}

CASE(gs_base_written)
{
	static int numbers[2] = { 17, 18 };
	unsigned long got;
	int through;

	for (int i = 0; i < 200; i++) {
		__asm__ volatile("wrgsbase %0" ::"r"(&numbers[i % 2]));
		raw(SYS_getgid, 0, 0, 0);
		__asm__ volatile("rdgsbase %0\n" : "=r"(got));
		if (got != (unsigned long)&numbers[i % 2]) {
			printf("lost by call %d\n", i + 1);
			return;
		}
		__asm__ volatile("movl %%gs:0,%0" : "=r"(through));
		if (through != 17 + i % 2)
			puts("wrong memory");
	}
	puts("kept");
}

CASE(gs_base_written_and_fault)
{
	static int number;
	unsigned char *code = trapping();

	on(SIGILL, keep, 0);
	__asm__ volatile("wrgsbase %0" ::"r"(&number));
	((void (*)(void))code)();
	puts("came back");
}

/* What is read from GS is written back later, as by a switch between coroutines:
 * in whatever thread of the machine this one has come to by then. */
static unsigned char *gs_site;
static volatile int gs_wrong;

static void *writes_gs_back(void *unused)
{
	unsigned long base;

	for (int i = 0; i < 500; i++) {
		__asm__ volatile("rdgsbase %0" : "=r"(base));
		usleep(50);
		raw(SYS_getppid, 0, 0, 0);
		__asm__ volatile("wrgsbase %0" ::"r"(base));
		for (int j = 0; j < 20; j++)
			if (call_site(gs_site, SYS_getgid, 0, 0, 0) != (long)getgid())
				gs_wrong = 1;
	}
	return 0;
}

CASE(gs_base_written_back)
{
	pthread_t threads[6];

	gs_site = new_site(MOV_EAX, SYS_getgid);
	warm(gs_site, SYS_getgid);
	for (int i = 0; i < 6; i++)
		must(!pthread_create(&threads[i], 0, writes_gs_back, 0), "pthread_create");
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], 0);
	puts(gs_wrong ? "wrong" : "all right");
}

/* Bases where there is no memory, or memory of others, and one of zeros. */
CASE(gs_bases_of_nothing)
{
	static char zeros[4096];
	const unsigned long bases[] = { 8, 0x7000000000, 0x560000000000, 0x560000000001, 0x560012340000, 0x5600ffff0000, (unsigned long)zeros, (unsigned long)zeros + 1 };

	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid);
		int right = 0;

		warm(site, SYS_getgid);
		for (unsigned i = 0; i < sizeof bases / sizeof *bases; i++)
			for (int j = 0; j < 50; j++) {
				__asm__ volatile("wrgsbase %0" ::"r"(bases[i]));
				right += call_site(site, SYS_getgid, 0, 0, 0) == (long)getgid();
			}
		printf("%s: %d right\n", shape_names[s], right);
	}
}

/* The FS base set by no call. */
CASE(fs_base_written_and_calls)
{
	static char zeros[4096];
	unsigned long was, is;
	int right = 0;

	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid);

		warm(site, SYS_getgid);
		long want = getgid();
		for (int j = 0; j < 50; j++) {
			__asm__ volatile("rdfsbase %0" : "=r"(was));
			__asm__ volatile("wrfsbase %0" ::"r"(j % 2 ? zeros : 0));
			long got = call_site(site, SYS_getgid, 0, 0, 0);
			__asm__ volatile("rdfsbase %0" : "=r"(is));
			__asm__ volatile("wrfsbase %0" ::"r"(was));
			right += got == want && is == (unsigned long)(j % 2 ? zeros : 0);
		}
	}
	printf("%d right\n", right);
}

CASE(gs_selector_loaded)
{
	unsigned long got;

	__asm__ volatile("xor %%eax,%%eax\n mov %%eax,%%gs" ::: "rax");
	printf("%d\n", raw(SYS_getgid, 0, 0, 0) == (long)getgid());
	__asm__ volatile("rdgsbase %0\n" : "=r"(got));
	printf("base %#lx\n", got);
}

CASE(gs_selector_of_data)
{
	__asm__ volatile("mov $0x2b,%%eax\n mov %%eax,%%gs" ::: "rax");
	printf("%d\n", raw(SYS_getgid, 0, 0, 0) == (long)getgid());
}

CASE(segment_selectors)
{
	unsigned cs, ss, ds, es, fs, gs;

	__asm__("mov %%cs,%0\n mov %%ss,%1\n mov %%ds,%2\n mov %%es,%3\n mov %%fs,%4\n mov %%gs,%5"
		: "=r"(cs), "=r"(ss), "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
	printf("%#x %#x %#x %#x %#x %#x\n", cs, ss, ds, es, fs, gs);
}

CASE(processor_features)
{
	unsigned a, b, c, d;

	__cpuid(1, a, b, c, d);
	printf("sse4.2 %d avx %d xsave %d osxsave %d\n", !!(c & bit_SSE4_2), !!(c & bit_AVX), !!(c & bit_XSAVE), !!(c & bit_OSXSAVE));
	__cpuid_count(7, 0, a, b, c, d);
	printf("avx2 %d avx512f %d fsgsbase %d erms %d\n", !!(b & bit_AVX2), !!(b & bit_AVX512F), !!(b & bit_FSGSBASE), !!(b & (1 << 9)));
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	printf("x87, SSE, AVX, AVX-512 enabled: %#x\n", a & 0xe7);
}

CASE(processor_features_not_for_programs)
{
	unsigned a, b, c, d;

	__cpuid_count(7, 0, a, b, c, d);
	printf("pku %d ospke %d amx %d\n", !!(c & bit_PKU), !!(c & bit_OSPKE), !!(d & (1 << 24)));
}

/* Tiles want leave of the kernel first. */
CASE(amx_permission)
{
	const int request = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, asm/prctl.h */

	printf("%s\n", arch_prctl(request, tile_data) ? strerrorname_np(errno) : "granted");
}

CASE(protection_keys)
{
	char *p = map(4096, PROT_READ | PROT_WRITE);
	int key = syscall(SYS_pkey_alloc, 0, 0);

	if (key < 0) {
		printf("pkey_alloc: %s\n", strerrorname_np(errno));
		return;
	}
	*p = 7;
	printf("pkey_mprotect: %ld\n", syscall(SYS_pkey_mprotect, p, 4096, PROT_READ | PROT_WRITE, key));
	printf("readable: %d\n", *p);
}

/* PKRU written by the program, where the processor lets it. */
CASE(pkru)
{
	unsigned a, b, c, d, pkru;

	__cpuid_count(7, 0, a, b, c, d);
	if (!(c & bit_OSPKE)) {
		puts("no protection keys");
		return;
	}
	__asm__ volatile(".byte 0x0f,0x01,0xee" : "=a"(pkru) : "c"(0) : "rdx");
	printf("at start %#x\n", pkru);
	__asm__ volatile(".byte 0x0f,0x01,0xef" ::"a"(0x55555550), "c"(0), "d"(0));
	raw(SYS_getgid, 0, 0, 0);
	__asm__ volatile(".byte 0x0f,0x01,0xee" : "=a"(pkru) : "c"(0) : "rdx");
	printf("after a call %#x\n", pkru);
}

/* The vsyscall page, of programs from before the vdso. */
CASE(vsyscall)
{
	long (*old_time)(long *) = (void *)0xffffffffff600400;
	int (*old_gettimeofday)(void *, void *) = (void *)0xffffffffff600000;
	struct {
		long sec, usec;
	} tv = { 0, 0 };
	long now, stored = 0;

	now = old_time(&stored);
	printf("time: %d %d\n", labs(now - raw(SYS_time, 0, 0, 0)) <= 1, stored == now);
	int ret = old_gettimeofday(&tv, 0);
	printf("gettimeofday: %d %d\n", ret, labs(tv.sec - now) <= 1);
}

/* System calls the way of 32-bit programs, in a 64-bit one: 32-bit numbers and arguments. */
static long int80(long nr, long b, long c, long d)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(b), "c"(c), "d"(d) : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

CASE(int80)
{
	static char *low;

	printf("getpid: %d\n", int80(20, 0, 0, 0) == getpid());
	printf("getppid: %d\n", int80(64, 0, 0, 0) == getppid());
	low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	must(low != MAP_FAILED, "mmap");
	strcpy(low, "written by int 0x80\n");
	printf("write: %ld\n", int80(4, 1, (long)low, 20));
	printf("bad: %ld\n", int80(4, -1, (long)low, 20));
	printf("unknown: %ld\n", int80(9999, 0, 0, 0));
}

/* All registers but rax; r8 to r11 were not kept by all kernels. */
CASE(int80_registers)
{
	unsigned char *code = text("\xcd\x80\xc3", 3); /* int $0x80; ret */
	static const long numbers[] = { 20, 64, 199, 9999 };
	int wrong = 0;

	for (int i = 0; i < 200; i++) {
		struct state in, out;
		long want = i % 4 == 0 ? getpid() : i % 4 == 1 ? getppid() : i % 4 == 2 ? (long)getuid() : -ENOSYS;

		fill(&in, i, i % 2 ? DF : 0);
		in.gpr[RAX] = numbers[i % 4] | (i % 3 ? 0 : 0x500000000);
		probe(&in, &out, code, vectors());
		wrong += (long)out.gpr[RAX] != want || in.gpr[RCX] != out.gpr[RCX];
		memcpy(&out.gpr[R8], &in.gpr[R8], 4 * 8);
		wrong += !!differs(&in, &out, vectors(), 0);
	}
	printf("%d wrong\n", wrong);
}

static volatile int alarms, restarts, alarm_pipe[2];

static void write_once(int sig, siginfo_t *info, void *context)
{
	if (restarts && ++alarms == 5 && write(alarm_pipe[1], "x", 1) != 1)
		_exit(99);
}

/* Calls that signals interrupt. */
CASE(int80_interrupted)
{
	static const struct itimerval every = { { 0, 3000 }, { 0, 3000 } };
	char *low = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	must(low != MAP_FAILED && !pipe((int *)alarm_pipe), "pipe");
	for (restarts = 0; restarts < 2; restarts++) {
		on(SIGALRM, write_once, restarts ? SA_RESTART : 0);
		setitimer(ITIMER_REAL, &every, 0);
		long got = int80(3, alarm_pipe[0] | 0x700000000, (long)low, 1);
		setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, 0);
		printf("%s: %ld\n", restarts ? "restarted" : "ended", got);
	}
}

CASE(int80_exit) { int80(1, 42, 0, 0); }

CASE(sysenter)
{
	on(SIGSEGV, keep, 0);
	__asm__ volatile("mov $20,%%eax\n mov %%rsp,%%rbp\n sysenter" ::: "rax", "rcx", "rdx", "rbp", "memory");
	puts("came back");
}

/* The registers that a program starts with: made by hand, as libc's start code
 * would have used them. Its exit code is 0 when all are zero. */
static const unsigned char first_registers[] = {
	0x48, 0x09, 0xd8, 0x48, 0x09, 0xc8, 0x48, 0x09, 0xd0, 0x48, 0x09, 0xf0, 0x48, 0x09, 0xf8, 0x48, 0x09, 0xe8, /* or rbx.. rbp */
	0x4c, 0x09, 0xc0, 0x4c, 0x09, 0xc8, 0x4c, 0x09, 0xd0, 0x4c, 0x09, 0xd8, /* r8-r11 */
	0x4c, 0x09, 0xe0, 0x4c, 0x09, 0xe8, 0x4c, 0x09, 0xf0, 0x4c, 0x09, 0xf8, /* r12-r15 */
	0x31, 0xff, 0x48, 0x85, 0xc0, 0x74, 0x05, 0xbf, 1, 0, 0, 0, /* edi = rax != 0 */
	0x48, 0x83, 0xec, 0x08, 0x0f, 0xae, 0x1c, 0x24, 0x81, 0x3c, 0x24, 0x80, 0x1f, 0, 0, 0x74, 0x03, 0x83, 0xcf, 0x02, /* MXCSR: |= 2 */
	0xd9, 0x3c, 0x24, 0x66, 0x81, 0x3c, 0x24, 0x7f, 0x03, 0x74, 0x03, 0x83, 0xcf, 0x04, /* x87 control: |= 4 */
	0xb8, 60, 0, 0, 0, 0x0f, 0x05,
};

CASE(first_registers_of_a_program)
{
	static const unsigned char header[120] = {
		0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0,
		64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0,
		1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,
		0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0,
	};
	char name[] = "/tmp/conform-XXXXXX", *none[] = { name, 0 };
	static char image[512];
	int fd = mkstemp(name);

	memcpy(image, header, sizeof header);
	memcpy(image + sizeof header, first_registers, sizeof first_registers);
	must(fd >= 0 && write(fd, image, sizeof image) == sizeof image && !fchmod(fd, 0700) && !close(fd), "a program");
	execv(name, none);
	must(0, "execv");
}

/* A forked child has the registers of its parent. */
CASE(registers_of_a_child)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_fork);
		struct state in, out;
		int status;

		fill(&in, s, DF);
		in.gpr[RAX] = SYS_fork;
		probe(&in, &out, site, vectors());
		const char *difference = differs(&in, &out, vectors(), compares(s));
		if (out.gpr[RAX] == 0)
			_exit(difference ? 1 : 0);
		waitpid(out.gpr[RAX], &status, 0);
		printf("%s: parent %s, child %s\n", shape_names[s], difference ? difference : "same",
		       WIFEXITED(status) && !WEXITSTATUS(status) ? "same" : "different");
	}
}

/* A thread of clone() too. */
CASE(registers_of_a_thread)
{
	EACH_SHAPE(s) {
		static struct state in, out;
		unsigned char bytes[SITE_AT + SITE_MAX] = { 0 }, *code = map(4096, PROT_READ | PROT_WRITE | PROT_EXEC), *p = code;
		int tid_at = 0, *futex = &tid_at;

		/* The child stores what it has on its stack, and exits. */
		memcpy(p, "\x48\x85\xc0\x74\x01\xc3", 6); /* test rax; jz child; ret */
		p += 6;
		memcpy(p, "\x4d\x31\xe5\x4d\x31\xee\x4d\x31\xf7\x4c\x89\x3c\x24", 13); /* r13^=r12, r14^=r13, r15^=r14; (rsp)=r15 */
		p += 13;
		memcpy(p, "\x66\x0f\x7e\x44\x24\x08\xf3\x44\x0f\x7f\x7c\x24\x10", 13); /* movd xmm0,8(rsp); movdqu xmm15,16(rsp) */
		p += 13;
		memcpy(p, "\x31\xff\xb8\x3c\0\0\0\x0f\x05", 9); /* exit(0) */
		size_t n = SITE_AT + put_site(bytes + SITE_AT, s, SYS_clone);
		memcpy(bytes + n - 1, "\xff\xe3", 2); /* jmp *%rbx */
		unsigned char *site = text(bytes, n + 1) + SITE_AT;
		for (int i = 0; i < 100; i++) { /* flags that do not fit together */
			fill(&in, i, 0);
			in.gpr[RAX] = SYS_clone;
			in.gpr[RBX] = (uint64_t)code;
			in.gpr[RDI] = CLONE_THREAD;
			probe(&in, &out, site, SSE);
		}
		uint64_t *stack = map(4096, PROT_READ | PROT_WRITE);

		fill(&in, s, 0);
		in.gpr[RAX] = SYS_clone;
		in.gpr[RBX] = (uint64_t)code;
		in.gpr[RDI] = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID |
			      CLONE_CHILD_CLEARTID;
		in.gpr[RSI] = (uint64_t)stack;
		in.gpr[RDX] = in.gpr[R10] = (uint64_t)futex;
		in.gpr[R8] = 0;
		probe(&in, &out, site, vectors());
		for (int tid; (tid = __atomic_load_n(futex, __ATOMIC_ACQUIRE));)
			raw(SYS_futex, (long)futex, 0 /* FUTEX_WAIT */, tid);
		uint32_t low;
		memcpy(&low, in.zmm[0], 4);
		printf("%s: r12-r15 %s, vectors %s\n", shape_names[s],
		       stack[0] == (in.gpr[R12] ^ in.gpr[R13] ^ in.gpr[R14] ^ in.gpr[R15]) ? "same" : "different",
		       (uint32_t)stack[1] == low && !memcmp(stack + 2, in.zmm[15], 16) ? "same" : "different");
	}
}
