// Offsets into the per-thread area; area_amd64_unsafe.go checks them at start-up.
#define AREA_SELF     0
#define AREA_HOSTFS   8
#define AREA_HOSTSP   16
#define AREA_HOSTBP   24
#define AREA_REGS     32
#define AREA_FP       40
#define AREA_FPSIZE   48
#define AREA_RIP      56
#define AREA_SELECTOR 64
#define AREA_STOP     72
#define AREA_XMASK    80
#define AREA_SIGNO    88
#define AREA_SICODE   96
#define AREA_SIADDR   104
#define AREA_ERR      112
#define AREA_TRAP     120
#define AREA_PENDING  128
#define AREA_PRSP     136
#define AREA_MXCSR    144
#define AREA_ARCH     152
#define AREA_PLAIN    160
#define AREA_TID      168
#define AREA_OWNER    176
#define AREA_SCRATCH  2048
#define AREA_SIZE     0x10000 // area and alternate signal stack, aligned to its size
#define AREA_MAGIC    0x5f3c91a7 // so that zeros are no owner
#define AREAS_TOP     0x5600 // upper half of every area's address

// Offsets into linux.PtraceRegs.
#define R_R15 0
#define R_R14 8
#define R_R13 16
#define R_R12 24
#define R_RBP 32
#define R_RBX 40
#define R_R11 48
#define R_R10 56
#define R_R9  64
#define R_R8  72
#define R_RAX 80
#define R_RCX 88
#define R_RDX 96
#define R_RSI 104
#define R_RDI 112
#define R_ORIG_RAX 120
#define R_RIP 128
#define R_CS 136
#define R_EFLAGS 144
#define R_RSP 152
#define R_SS 160
#define R_FSBASE 168
#define R_GSBASE 176

// Offsets into struct ucontext, arch/x86/include/uapi/asm/sigcontext.h.
#define UC_R8  40
#define UC_R9  48
#define UC_R10 56
#define UC_R11 64
#define UC_R12 72
#define UC_R13 80
#define UC_R14 88
#define UC_R15 96
#define UC_RDI 104
#define UC_RSI 112
#define UC_RBP 120
#define UC_RBX 128
#define UC_RDX 136
#define UC_RAX 144
#define UC_RCX 152
#define UC_RSP 160
#define UC_RIP 168
#define UC_EFLAGS 176
#define UC_ERR 192
#define UC_TRAPNO 200
#define UC_CR2 216
#define UC_FPSTATE 224
#define UC_SIGMASK 296

// Selector values of Syscall User Dispatch.
#define SELECTOR_ALLOW 0
#define SELECTOR_BLOCK 1

// Offset of guest.tid from guest.stop.
#define G_TID 4

// Signals of faults: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
#define FAULTS 0x800009b0

// Results of enter.
#define LEFT_BY_SIGNAL 1
#define NOT_ENTERED    2
// LEFT_BY_CALL (sites.go) is the result of a patched site's trampoline.
