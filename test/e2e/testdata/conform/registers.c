/* Registers before and after a system call, for each shape of call site. */
#include "conform.h"

static const unsigned numbers[] = { SYS_getpid, SYS_geteuid, SYS_getuid, SYS_getgid };

/* Probes a site again and again; says how often the registers were right. */
static void probe_site(const char *what, const unsigned char *site, enum shape s, unsigned nr, uint64_t flags, int rounds)
{
	struct state in, out;
	long want = raw(nr, 0, 0, 0);
	enum vectors v = vectors();

	for (int i = 0; i < rounds; i++) {
		fill(&in, i, flags);
		in.gpr[RAX] = nr;
		probe(&in, &out, site, v);
		const char *difference = differs(&in, &out, v, compares(s));
		if (!difference && (long)out.gpr[RAX] != want)
			difference = "the call's result";
		if (difference) {
			printf("%s: %s\n", what, difference);
			return;
		}
	}
	printf("%s: %d calls changed nothing\n", what, rounds);
}

CASE(registers)
{
	EACH_SHAPE(s)
		probe_site(shape_names[s], new_site(s, SYS_getgid), s, SYS_getgid, 0, 1000);
}

CASE(direction_flag)
{
	EACH_SHAPE(s)
		probe_site(shape_names[s], new_site(s, SYS_getgid), s, SYS_getgid, DF, 300);
}

CASE(alignment_check_flag)
{
	EACH_SHAPE(s)
		probe_site(shape_names[s], new_site(s, SYS_getgid), s, SYS_getgid, AC, 300);
}

CASE(id_flag)
{
	EACH_SHAPE(s)
		probe_site(shape_names[s], new_site(s, SYS_getgid), s, SYS_getgid, ID, 300);
}

/* rcx is the address of the next instruction, and r11 the flags (Intel SDM, SYSCALL). */
CASE(clobbers)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_getgid);
		struct state in, out;

		for (int i = 0; i < 300; i++) {
			fill(&in, i, 0);
			in.gpr[RAX] = SYS_getgid;
			probe(&in, &out, site, SSE);
			if (i == 0 || i == 299)
				printf("%s, call %d: rcx %s, r11 %s\n", shape_names[s], i + 1,
				       out.gpr[RCX] == (uint64_t)site + syscall_offset(s) + 2 ? "next instruction" : "something else",
				       out.gpr[R11] == in.flags ? "flags" : "something else");
		}
	}
}

enum { MANY = 500 };

CASE(many_sites)
{
	static unsigned char bytes[MANY * SITE_MAX];
	struct state in, out;
	int wrong = 0;

	for (int i = 0; i < MANY; i++)
		put_site(bytes + i * SITE_MAX, i % SHAPES, numbers[i / SHAPES % 4]);
	unsigned char *code = text(bytes, sizeof bytes);
	for (int i = 0; i < MANY; i++)
		for (int round = 0; round < 40; round++) {
			fill(&in, i, 0);
			in.gpr[RAX] = numbers[i / SHAPES % 4];
			probe(&in, &out, code + i * SITE_MAX, SSE);
			if (differs(&in, &out, SSE, compares(i % SHAPES)) ||
			    (long)out.gpr[RAX] != raw(numbers[i / SHAPES % 4], 0, 0, 0))
				wrong++;
		}
	printf("%d sites, %d wrong results\n", MANY, wrong);
}

/* All threads call a site for the first time at the same moment. */
enum { RACERS = 8, RACES = 200 };

static unsigned char *course;
static int arrived, wrong;

static void *racer(void *unused)
{
	struct state in, out;

	for (int i = 0; i < RACES; i++) {
		enum shape s = i % SHAPES;

		__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL);
		while (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < (i + 1) * RACERS)
			sched_yield();
		for (int j = 0; j < 20; j++) {
			fill(&in, i + j, 0);
			in.gpr[RAX] = SYS_getgid;
			probe(&in, &out, course + i * SITE_MAX, SSE);
			if (differs(&in, &out, SSE, compares(s)) || (long)out.gpr[RAX] != (long)getgid())
				__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
		}
	}
	return 0;
}

CASE(first_calls_race)
{
	static unsigned char bytes[RACES * SITE_MAX];
	pthread_t t[RACERS];

	for (int i = 0; i < RACES; i++)
		put_site(bytes + i * SITE_MAX, i % SHAPES, SYS_getgid);
	course = text(bytes, sizeof bytes);
	for (int i = 0; i < RACERS; i++)
		must(!pthread_create(&t[i], 0, racer, 0), "pthread_create");
	for (int i = 0; i < RACERS; i++)
		pthread_join(t[i], 0);
	printf("%d wrong results\n", wrong);
}

/* Runs a site on a stack pointer that points at nothing. */
static long wild_stack(const void *site, uint64_t sp)
{
	static uint64_t saved;
	long ret;

	__asm__ volatile(
		"mov %%rsp,%[saved]\n mov %[sp],%%rsp\n lea 1f(%%rip),%%rbx\n jmp *%[site]\n"
		"1: mov %[saved],%%rsp"
		: "=a"(ret), [saved] "=m"(saved)
		: "a"(SYS_getgid), [sp] "r"(sp), [site] "r"(site)
		: "rbx", "rcx", "r11", "memory", "cc");
	return ret;
}

CASE(stack_pointer_points_at_nothing)
{
	static const uint64_t wild[] = { 0, 8, 0x1000, 0x123456789abcdef0, -8ull };

	EACH_SHAPE(s) {
		unsigned char code[SITE_AT + SITE_MAX] = { 0 };
		size_t n = SITE_AT + put_site(code + SITE_AT, s, SYS_getgid);
		int ok = 0;

		memcpy(code + n - 1, "\xff\xe3", 2); /* jmp *%rbx for ret */
		unsigned char *site = text(code, n + 1) + SITE_AT;
		for (int i = 0; i < 100; i++)
			for (unsigned j = 0; j < sizeof wild / sizeof *wild; j++)
				ok += wild_stack(site, wild[j]) == (long)getgid();
		printf("%s: %d\n", shape_names[s], ok);
	}
}

/* Does not touch thread variables: FS does not point at them. */
__attribute__((noinline, optimize("no-stack-protector"))) static int with_fs(const void *site, uint64_t fs)
{
	uint64_t own, after;
	int ok = 1;
	long ppid = raw(SYS_getgid, 0, 0, 0);

	__asm__ volatile("rdfsbase %0" : "=r"(own));
	for (int i = 0; i < 100; i++) {
		__asm__ volatile("wrfsbase %0" ::"r"(fs));
		long ret = call_site(site, SYS_getgid, 0, 0, 0);
		__asm__ volatile("rdfsbase %0\n wrfsbase %1" : "=&r"(after) : "r"(own));
		ok &= ret == ppid && after == fs;
	}
	return ok;
}

CASE(fs_points_at_nothing)
{
	static const uint64_t bases[] = { 0, 1, 0x7000, 0x7ffffffff000 };

	EACH_SHAPE(s)
		for (unsigned i = 0; i < sizeof bases / sizeof *bases; i++)
			printf("%s, %#lx: %d\n", shape_names[s], bases[i], with_fs(new_site(s, SYS_getgid), bases[i]));
}

/* Numbers that are no system call's. Linux takes the low 32 bits as a signed number. */
CASE(unknown_numbers)
{
	static const long numbers[] = { -1, 999, 0x40000000 + SYS_getgid, 0x1234567800000068, 0xffffffff, -4096 };

	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		unsigned char *site = new_site(SYSCALL_CMP, 0), *mov = new_site(MOV_EAX, numbers[i]);

		warm(site, numbers[i]);
		warm(mov, 0);
		long a = call_site(site, numbers[i], 0, 0, 0), b = call_site(mov, 0, 0, 0, 0);
		printf("%#lx: %s, mov %s\n", numbers[i], a == (long)getgid() ? "getgid" : strerrorname_np(-a),
		       b == (long)getgid() ? "getgid" : strerrorname_np(-b));
	}
}

CASE(bad_pointers)
{
	EACH_SHAPE(s) {
		unsigned char *site = new_site(s, SYS_uname);

		for (int i = 0; i < 100; i++)
			call_site(site, SYS_uname, -1, 0, 0);
		printf("%s: %s, %s, %s\n", shape_names[s], strerrorname_np(-call_site(site, SYS_uname, 0, 0, 0)),
		       strerrorname_np(-call_site(site, SYS_uname, 0xc000000000, 0, 0)),
		       strerrorname_np(-call_site(site, SYS_uname, -4096, 0, 0)));
	}
}
