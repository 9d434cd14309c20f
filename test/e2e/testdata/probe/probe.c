#include "probe.h"

#include <stdio.h>
#include <string.h>

_Static_assert(offsetof(struct state, flags) == 128 && offsetof(struct state, red_zone) == 136 &&
	       offsetof(struct state, k) == 144 && offsetof(struct state, fx) == 256 && offsetof(struct state, zmm) == 768,
	       "probe.S has these offsets");

enum vectors vectors(void)
{
	static enum vectors v;
	static int known;

	if (!known) {
		__builtin_cpu_init();
		v = __builtin_cpu_supports("avx512bw") ? AVX512 : __builtin_cpu_supports("avx2") ? AVX : SSE;
		known = 1;
	}
	return v;
}

/* splitmix64, by S. Vigna: the next number of a sequence that follows from *x. */
static uint64_t next(uint64_t *x)
{
	uint64_t z = (*x += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

void fill(struct state *s, uint64_t seed, uint64_t flags)
{
	uint64_t x = seed, *p;

	memset(s, 0, sizeof *s);
	for (int i = 0; i < GPRS; i++)
		s->gpr[i] = next(&x);
	s->flags = 0x202 | flags | (next(&x) & ARITHMETIC);
	for (int i = 0; i < 8; i++)
		s->k[i] = next(&x);
	for (p = (uint64_t *)s->zmm; p < (uint64_t *)(s + 1); p++)
		*p = next(&x);
	/* x87: all registers in use, exceptions masked, precision and rounding of the seed. */
	uint16_t control = 0x7f | (next(&x) & 0xc00) | 0x300;
	uint32_t mxcsr = 0x1f80 | (next(&x) & 0xe03f); /* all masked; rounding, FTZ, sticky bits */
	memcpy(s->fx, &control, 2);
	s->fx[4] = 0xff;
	memcpy(s->fx + 24, &mxcsr, 4);
	for (int i = 0; i < 8; i++) {
		uint64_t mantissa = next(&x) | 1ull << 63;
		uint16_t exponent = 0x3fff + (next(&x) & 0xff);

		memcpy(s->fx + 32 + 16 * i, &mantissa, 8);
		memcpy(s->fx + 32 + 16 * i + 8, &exponent, 2);
	}
	for (int i = 0; i < 16; i++) /* the XMM registers are the low parts */
		memcpy(s->fx + 160 + 16 * i, s->zmm[i], 16);
}

static uint64_t flags_of_cmp(uint64_t rax)
{
	uint64_t flags;

	__asm__("cmp $-4095,%1\n pushfq\n popq %0" : "=r"(flags) : "r"(rax) : "cc");
	return flags;
}

/* Each thread has its own text. */
static __thread char text[96];

static const char *say(const char *what, int n, uint64_t was, uint64_t is)
{
	snprintf(text, sizeof text, "%s%.0d was %#lx, is %#lx", what, n, was, is);
	return text;
}

static const char *differing_vectors(const struct state *in, const struct state *out, enum vectors v)
{
	int registers = v == AVX512 ? 32 : 16, size = v == AVX512 ? 64 : 32;

	for (int i = 0; v != SSE && i < registers; i++)
		for (int j = 0; j < size; j++)
			if (in->zmm[i][j] != out->zmm[i][j]) {
				snprintf(text, sizeof text, "byte %d of vector register %d was %#x, is %#x", j, i, in->zmm[i][j], out->zmm[i][j]);
				return text;
			}
	for (int i = 0; v == AVX512 && i < 8; i++)
		if (in->k[i] != out->k[i])
			return say("k", i, in->k[i], out->k[i]);
	return NULL;
}

const char *differs(const struct state *in, const struct state *out, enum vectors v, int cmp)
{
	static const char *const names[GPRS] = { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
						 "r8",	"r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	uint64_t flags = in->flags;

	for (int i = 0; i < GPRS; i++)
		if (i != RAX && i != RCX && i != R11 && out->gpr[i] != (i == RSP ? 0 : in->gpr[i]))
			return say(names[i], 0, i == RSP ? 0 : in->gpr[i], out->gpr[i]);
	if (cmp)
		flags = (flags & ~(uint64_t)ARITHMETIC) | (flags_of_cmp(out->gpr[RAX]) & ARITHMETIC);
	if (out->flags != flags)
		return say("flags", 0, flags, out->flags);
	if (out->red_zone)
		return "the red zone changed";
	for (int i = 0; i < 416; i++)
		if (in->fx[i] != out->fx[i] && i / 4 != 7 /* MXCSR_MASK */) {
			snprintf(text, sizeof text, "byte %d of the x87/SSE state was %#x, is %#x", i, in->fx[i], out->fx[i]);
			return text;
		}
	return differing_vectors(in, out, v);
}

const char *const shape_names[SHAPES] = { "mov-eax", "syscall-cmp", "mov-eax-cmp", "mov-rax", "plain", "mov-nop", "cmp-eax" };

int compares(enum shape s) { return s == SYSCALL_CMP || s == MOV_EAX_CMP || s == CMP_EAX; }

size_t syscall_offset(enum shape s)
{
	static const size_t offsets[SHAPES] = { 5, 0, 5, 7, 0, 6, 0 };

	return offsets[s];
}

size_t put_site(unsigned char *at, enum shape s, unsigned nr)
{
	unsigned char *p = at;

	switch (s) {
	case MOV_EAX:
	case MOV_EAX_CMP:
	case MOV_NOP:
		*p++ = 0xb8;
		memcpy(p, &nr, 4);
		p += 4;
		if (s == MOV_NOP)
			*p++ = 0x90;
		break;
	case MOV_RAX:
		memcpy(p, "\x48\xc7\xc0", 3);
		memcpy(p + 3, &nr, 4);
		p += 7;
		break;
	default:
		break;
	}
	*p++ = 0x0f;
	*p++ = 0x05;
	if (s == SYSCALL_CMP || s == MOV_EAX_CMP) {
		memcpy(p, "\x48\x3d\x01\xf0\xff\xff", 6);
		p += 6;
	}
	if (s == CMP_EAX) {
		memcpy(p, "\x3d\x01\xf0\xff\xff", 5);
		p += 5;
	}
	*p++ = 0xc3;
	return p - at;
}
