/* What a system call may change, checked bit by bit: a probe fills every
 * register of the processor that user code can write, calls a piece of code
 * that makes a system call, and reads them all again. */
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdint.h>

enum { RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15, GPRS };

/* Bits of the flags register. */
enum { CF = 1, PF = 4, AF = 16, ZF = 64, SF = 128, TF = 256, DF = 1024, OF = 2048, AC = 1 << 18, ID = 1 << 21 };
#define ARITHMETIC (CF | PF | AF | ZF | SF | OF)

/* probe.S knows the offsets. */
struct state {
	uint64_t gpr[GPRS]; /* in: rsp unused; out: rsp by how much it moved */
	uint64_t flags;
	uint64_t red_zone; /* out: 0 if the 120 bytes under the caller's stack kept their values */
	uint64_t k[8];
	uint64_t unused[6];
	unsigned char fx[512]; /* as by FXSAVE64: x87, MXCSR, XMM */
	unsigned char zmm[32][64];
} __attribute__((aligned(64)));

enum vectors { SSE, AVX, AVX512 };

/* The widest vector registers that there are. */
enum vectors vectors(void);

/* Fills all registers from in, calls code, which returns by `ret`, and stores
 * all registers to out. */
void probe(const struct state *in, struct state *out, const void *code, enum vectors v);

/* A state that follows from seed. flags are ORed into harmless ones. */
void fill(struct state *s, uint64_t seed, uint64_t flags);

/* The first register that differs in a way that Linux does not do it across a
 * system call, or NULL. cmp: the code compares rax with -4095 after the call. */
const char *differs(const struct state *in, const struct state *out, enum vectors v, int cmp);

/* Call sites: pieces of code that make a system call. */
enum shape {
	MOV_EAX,	 /* mov $nr,%eax; syscall: most of libc */
	SYSCALL_CMP,	 /* syscall; cmp $-4095,%rax: syscall(3), Go's Syscall6 */
	MOV_EAX_CMP,	 /* both together */
	MOV_RAX,	 /* mov $nr,%rax; syscall: seven bytes and two */
	PLAIN,		 /* syscall */
	MOV_NOP,	 /* mov $nr,%eax; nop; syscall */
	CMP_EAX,	 /* syscall; cmp $-4095,%eax */
	SHAPES
};

extern const char *const shape_names[SHAPES];

enum { SITE_MAX = 32 };

/* Writes a site for system call nr and returns its length. */
size_t put_site(unsigned char *at, enum shape s, unsigned nr);

/* Where in a site the syscall instruction is. */
size_t syscall_offset(enum shape s);

/* Whether the site compares after the call. */
int compares(enum shape s);

#endif
