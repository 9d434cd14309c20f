#include "textflag.h"
#include "area.h"
#include "state.h"

// RARE_FLAGS are those beside the arithmetic ones that a program can set: ID,
// AC, NT, DF, TF. In host mode they are clear.
#define RARE_FLAGS 0x244500

// LOAD_REGS loads the program's registers, but SP, from the register file at
// R9. The bytes are movq R_RBP(R9), BP: vet knows no code that is left for good.
#define LOAD_REGS \
	MOVQ R_R15(R9), R15; \
	MOVQ R_R14(R9), R14; \
	MOVQ R_R13(R9), R13; \
	MOVQ R_R12(R9), R12; \
	BYTE $0x49; BYTE $0x8b; BYTE $0x69; BYTE $R_RBP; \
	MOVQ R_RBX(R9), BX; \
	MOVQ R_R11(R9), R11; \
	MOVQ R_R10(R9), R10; \
	MOVQ R_RAX(R9), AX; \
	MOVQ R_RCX(R9), CX; \
	MOVQ R_RDX(R9), DX; \
	MOVQ R_RSI(R9), SI; \
	MOVQ R_RDI(R9), DI; \
	MOVQ R_R8(R9), R8; \
	MOVQ R_R9(R9), R9

// func enter(a *area) uint64
//
// Runs the program whose state a points at until it is left, and says how.
// The caller is between entersyscall and exitsyscall. Go's ABI0 lets an
// assembly function clobber all registers but SP and BP.
TEXT ·enter(SB),NOSPLIT|NOFRAME,$0-16
	MOVQ 8(SP), R8 // a
	MOVQ SP, AREA_HOSTSP(R8)
	MOVQ BP, AREA_HOSTBP(R8)
	MOVQ AREA_FP(R8), DI
	CMPB AREA_PLAIN(R8), $0
	JEQ  xrstor
	// Plain moves do when each component but SSE and AVX that the processor has
	// in use, or that is to be loaded, is one that they load.
	VZEROUPPER
	MOVL $1, CX
	XGETBV
	ANDL AREA_XMASK(R8), AX
	MOVQ XS_BV(DI), DX
	MOVL DX, CX
	ORL  $(XS_SSE|XS_AVX), CX
	NOTL CX
	TESTL CX, AX
	JNZ  xrstor
	TESTL $XS_SLOW, DX
	JNZ  xrstor
	TESTL $XS_SSE, DX
	JZ   xrstor
	LDMXCSR XS_MXCSR(DI)
	LOAD_XMM
	TESTL $XS_AVX, DX
	JZ   noYMM
	LOAD_YMM
noYMM:
	TESTL $XS_OPMASK, DX
	JZ   noK
	LOAD_K
noK:
	TESTL $XS_HI16, DX
	JZ   loaded
	LOAD_ZMM16
	JMP  loaded
xrstor:
	MOVL AREA_XMASK(R8), AX
	MOVL (AREA_XMASK+4)(R8), DX
	XRSTOR64 (DI)
loaded:
	MOVQ AREA_REGS(R8), R9
	JMP  ·enterWindow(SB)

// enterWindow is left to the program. Signals that arrive inside it undo the
// entry: the program's register file has not been changed yet.
TEXT ·enterWindow(SB),NOSPLIT|NOFRAME,$0
	MOVB $SELECTOR_BLOCK, AREA_SELECTOR(R8)
	// Whom to signal first, then the look at stop: an interrupt does it the
	// other way round.
	MOVQ AREA_STOP(R8), AX
	MOVL AREA_TID(R8), CX
	XCHGL CX, G_TID(AX)
	CMPL (AX), $0
	JNE  stop
	MOVQ R_RIP(R9), AX
	MOVQ AX, AREA_RIP(R8)
	MOVQ R_FSBASE(R9), AX
	WRFSBASEQ AX
	NEGQ AX
	ADDQ $AREA_MAGIC, AX
	MOVQ AX, AREA_OWNER(R8)
	LEAQ AREA_SCRATCH(R8), SP
	MOVQ R_EFLAGS(R9), AX
	TESTL $0x100, AX // TF
	JNZ  atOnce
	CMPQ R_GSBASE(R9), $0
	JNE  atOnce
	TESTL $RARE_FLAGS, AX
	JNZ  allFlags
	// The host's are clear, so only the arithmetic ones have to be set, for which
	// there are quicker instructions than popfq.
	MOVL AX, CX
	SHRL $11, CX
	ANDL $1, CX
	SHLL $8, AX
	ADDB $0x7f, CX // overflows if OF was set
	SAHF
	JMP  flagged
allFlags:
	PUSHQ AX
	POPFQ
flagged:
	MOVQ R_RSP(R9), SP
	LOAD_REGS
	BYTE $0x65; BYTE $0xff; BYTE $0x24; BYTE $0x25; LONG $AREA_RIP // jmp *%gs:AREA_RIP
atOnce:
	// iretq takes the flags and the address at once, and needs no area: with the
	// trap flag the first instruction to trap must be the program's, and a
	// program may have a GS base of its own.
	MOVQ AREA_RIP(R8), CX
	MOVQ CX, (AREA_SCRATCH-40)(R8)
	MOVQ $0x33, (AREA_SCRATCH-32)(R8) // user code segment
	MOVQ AX, (AREA_SCRATCH-24)(R8)
	MOVQ R_RSP(R9), CX
	MOVQ CX, (AREA_SCRATCH-16)(R8)
	MOVQ $0x2b, (AREA_SCRATCH-8)(R8) // user data segment
	LEAQ (AREA_SCRATCH-40)(R8), SP
	MOVQ R_GSBASE(R9), AX
	TESTQ AX, AX
	JZ   noGS
	WRGSBASEQ AX
noGS:
	LOAD_REGS
	IRETQ
stop:
	MOVL $0, G_TID(AX)
	LDMXCSR AREA_MXCSR(R8) // enter has loaded the program's
	MOVB $SELECTOR_ALLOW, AREA_SELECTOR(R8)
	MOVQ $NOT_ENTERED, 16(SP) // enter's result
	RET

// enterWindowEnd marks the end of the window.
TEXT ·enterWindowEnd(SB),NOSPLIT|NOFRAME,$0
	INT $3

// callEntry is where the trampoline of a patched system call site leads, once
// it knows that GS is the thread's area (sites.go): it leaves the program as
// sigHandler does, by a jump.
//
// Entered in program mode with R11 the result for enter; that and CX are a
// system call's to clobber. The flags and the program's stack may not be
// touched. FS is as the program was entered with. A signal in here is noted and
// its handler returns: whoever called enter raises it again.
TEXT ·callEntry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ SP, AREA_PRSP(GS)
	MOVQ AREA_SELF(GS), SP
	LEAQ AREA_SCRATCH(SP), SP
	PUSHFQ
	PUSHQ R11
	MOVB $SELECTOR_ALLOW, AREA_SELECTOR(GS)
	MOVQ $0, AREA_OWNER(GS)
	MOVQ AREA_REGS(GS), R11
	MOVQ R15, R_R15(R11)
	MOVQ R14, R_R14(R11)
	MOVQ R13, R_R13(R11)
	MOVQ R12, R_R12(R11)
	MOVQ BP, R_RBP(R11)
	MOVQ BX, R_RBX(R11)
	MOVQ R10, R_R10(R11)
	MOVQ R9, R_R9(R11)
	MOVQ R8, R_R8(R11)
	MOVQ AX, R_RAX(R11)
	MOVQ AX, R_ORIG_RAX(R11)
	MOVQ DX, R_RDX(R11)
	MOVQ SI, R_RSI(R11)
	MOVQ DI, R_RDI(R11)
	POPQ BX // result
	POPQ DX // flags
	MOVQ DX, R_EFLAGS(R11)
	MOVQ DX, R_R11(R11)
	MOVQ AREA_PRSP(GS), CX
	MOVQ CX, R_RSP(R11)
	MOVQ AREA_SELF(GS), R8
	MOVQ AREA_HOSTFS(R8), AX
	WRFSBASEQ AX
	TESTL $RARE_FLAGS, DX
	JZ   plain
	PUSHQ $0x202
	POPFQ
plain:
	MOVQ AREA_FP(R8), DI
	CMPB AREA_PLAIN(R8), $0
	JEQ  xsave
	MOVL $1, CX
	XGETBV
	ANDL AREA_XMASK(R8), AX
	TESTL $XS_SLOW, AX
	JNZ  xsave
	ORL  $XS_SSE, AX
	MOVQ AX, XS_BV(DI)
	STMXCSR XS_MXCSR(DI)
	STORE_XMM
	TESTL $XS_AVX, AX
	JZ   noYMM
	STORE_YMM
noYMM:
	TESTL $XS_OPMASK, AX
	JZ   noK
	STORE_K
noK:
	TESTL $XS_HI16, AX
	JZ   stored
	STORE_ZMM16
	JMP  stored
xsave:
	MOVL AREA_XMASK(R8), AX
	MOVL (AREA_XMASK+4)(R8), DX
	BYTE $0x48; BYTE $0x0f; BYTE $0xae; BYTE $0x37 // xsaveopt64 (DI)
	// x87 counts as in use once it was loaded: if its state is the initial one,
	// the next xrstor shall take it out of use.
	CMPQ 0(DI), $0x37f // control word; status and tags empty
	JNE  stored
	CMPQ 8(DI), $0
	JNE  stored
	CMPQ 16(DI), $0
	JNE  stored
	ANDQ $~1, XS_BV(DI)
stored:
	LDMXCSR AREA_MXCSR(R8)
	TESTB $XS_AVX, AREA_XMASK(R8)
	JZ   noAVX
	VZEROUPPER
noAVX:
	MOVQ AREA_STOP(R8), AX
	MOVL $0, G_TID(AX)
	MOVQ AREA_HOSTSP(R8), SP
	MOVQ AREA_HOSTBP(R8), BP
	MOVQ BX, 16(SP) // enter's result
	RET

// foreignGS marks the end of callEntry. Trampolines jump to it in program mode
// when the area cannot be found but by a signal, with R11 as for callEntry.
TEXT ·foreignGS(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	UNDEF

// sigHandler is the process's handler of every signal that can arrive in
// program mode. In host mode it continues with the handler that stood before.
//
// Entered by the kernel on the thread's alternate stack: DI signal number,
// SI siginfo, DX ucontext. FS is whatever was interrupted.
TEXT ·sigHandler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ UC_RIP(DX), AX
	LEAQ ·enterWindow(SB), CX
	CMPQ AX, CX
	JB   outside
	LEAQ ·enterWindowEnd(SB), CX
	CMPQ AX, CX
	JB   undo
	LEAQ ·foreignGS(SB), CX
	CMPQ AX, CX
	JB   note // callEntry follows enterWindow
outside:
	// Beside those two, the selector tells whose code it is, wherever it lies. A
	// thread that has never entered a program is on the Go runtime's signal stack.
	MOVQ SP, R8
	ANDQ $~(AREA_SIZE-1), R8
	MOVQ R8, R9
	SHRQ $32, R9
	CMPQ R9, $AREAS_TOP
	JNE  host
	CMPB AREA_SELECTOR(R8), $SELECTOR_BLOCK
	JEQ  program
host:
	LEAQ ·previous(SB), R11
	MOVQ (R11)(DI*8), R11
	JMP  R11

note:
	CMPL 8(SI), $0 // si_code
	JLE  sent
	CMPL DI, $11 // SIGSEGV
	JNE  noKey
	CMPL 8(SI), $4 // SEGV_PKUERR
	JEQ  unlock
noKey:
	MOVL $FAULTS, AX
	BTL  DI, AX
	JCS  host // a fault of callEntry itself: fatal
sent:
	MOVQ SP, R8
	ANDQ $~(AREA_SIZE-1), R8
	DECL DI
	BTSQ DI, AREA_PENDING(R8)
	RET

unlock:
	// The program's protection keys deny what callEntry needs: take them away.
	MOVQ UC_FPSTATE(DX), AX
	ANDQ $~XS_PKRU, XS_BV(AX)
	RET

undo:
	MOVQ SP, R8
	ANDQ $~(AREA_SIZE-1), R8
	MOVQ DI, AREA_SIGNO(R8)
	MOVLQSX 8(SI), AX
	MOVQ AX, AREA_SICODE(R8)
	MOVQ 16(SI), AX
	MOVQ AX, AREA_SIADDR(R8)
	MOVQ UC_ERR(DX), AX
	MOVQ AX, AREA_ERR(R8)
	MOVQ UC_TRAPNO(DX), AX
	MOVQ AX, AREA_TRAP(R8)
	MOVQ $NOT_ENTERED, R11
	JMP  leave

program:
	MOVL 28(SI), AX // si_arch of a SIGSYS
	MOVQ AX, AREA_ARCH(R8)
	MOVQ DI, AREA_SIGNO(R8)
	MOVLQSX 8(SI), AX
	MOVQ AX, AREA_SICODE(R8)
	MOVQ 16(SI), AX
	MOVQ AX, AREA_SIADDR(R8)
	MOVQ UC_ERR(DX), AX
	MOVQ AX, AREA_ERR(R8)
	MOVQ UC_TRAPNO(DX), AX
	MOVQ AX, AREA_TRAP(R8)

	MOVQ AREA_REGS(R8), R9
	MOVQ UC_R15(DX), AX
	MOVQ AX, R_R15(R9)
	MOVQ UC_R14(DX), AX
	MOVQ AX, R_R14(R9)
	MOVQ UC_R13(DX), AX
	MOVQ AX, R_R13(R9)
	MOVQ UC_R12(DX), AX
	MOVQ AX, R_R12(R9)
	MOVQ UC_RBP(DX), AX
	MOVQ AX, R_RBP(R9)
	MOVQ UC_RBX(DX), AX
	MOVQ AX, R_RBX(R9)
	MOVQ UC_R11(DX), AX
	MOVQ AX, R_R11(R9)
	MOVQ UC_R10(DX), AX
	MOVQ AX, R_R10(R9)
	MOVQ UC_R9(DX), AX
	MOVQ AX, R_R9(R9)
	MOVQ UC_R8(DX), AX
	MOVQ AX, R_R8(R9)
	MOVQ UC_RAX(DX), AX
	MOVQ AX, R_RAX(R9)
	MOVQ UC_RCX(DX), AX
	MOVQ AX, R_RCX(R9)
	MOVQ UC_RDX(DX), AX
	MOVQ AX, R_RDX(R9)
	MOVQ UC_RSI(DX), AX
	MOVQ AX, R_RSI(R9)
	MOVQ UC_RDI(DX), AX
	MOVQ AX, R_RDI(R9)
	MOVQ UC_RIP(DX), AX
	MOVQ AX, R_RIP(R9)
	MOVQ UC_EFLAGS(DX), AX
	MOVQ AX, R_EFLAGS(R9)
	MOVQ UC_RSP(DX), AX
	MOVQ AX, R_RSP(R9)
	RDFSBASEQ AX
	MOVQ AX, R_FSBASE(R9)
	RDGSBASEQ AX
	MOVQ AX, CX
	SHRQ $32, CX
	CMPQ CX, $AREAS_TOP
	JNE  ownGS
	XORL AX, AX // an area: the program has none of its own
ownGS:
	MOVQ AX, R_GSBASE(R9)

	MOVQ UC_FPSTATE(DX), SI
	MOVQ AREA_FP(R8), DI
	MOVQ AREA_FPSIZE(R8), CX
	CLD
	REP; MOVSB
	MOVQ $LEFT_BY_SIGNAL, R11

leave:
	WRGSBASEQ R8
	MOVQ AREA_STOP(R8), AX
	MOVL $0, G_TID(AX)
	MOVB $SELECTOR_ALLOW, AREA_SELECTOR(R8)
	MOVQ $0, AREA_OWNER(R8)
	MOVQ AREA_HOSTFS(R8), AX
	WRFSBASEQ AX
	MOVQ AREA_HOSTSP(R8), SP
	MOVQ AREA_HOSTBP(R8), BP
	PUSHQ $0x202 // interrupts on, all else (AC) clear
	POPFQ
	MOVQ R11, 16(SP) // enter's result
	// The handler ran with all signals blocked, as Go's own do: unblock them
	// now that FS is the host's. The frame is intact until then.
	LEAQ UC_SIGMASK(DX), SI
	MOVQ $2, DI // SIG_SETMASK
	XORL DX, DX
	MOVQ $8, R10
	MOVQ $14, AX // rt_sigprocmask
	SYSCALL
	RET

// func threadArea() *area
TEXT ·threadArea(SB),NOSPLIT|NOFRAME,$0-8
	RDGSBASEQ AX
	MOVQ AX, ret+0(FP)
	RET

// func fsBase() uintptr
TEXT ·fsBase(SB),NOSPLIT|NOFRAME,$0-8
	RDFSBASEQ AX
	MOVQ AX, ret+0(FP)
	RET

// func setThreadArea(a *area)
TEXT ·setThreadArea(SB),NOSPLIT|NOFRAME,$0-8
	MOVQ a+0(FP), AX
	WRGSBASEQ AX
	RET

// func addrOfCallEntry() uintptr
TEXT ·addrOfCallEntry(SB),NOSPLIT|NOFRAME,$0-8
	LEAQ ·callEntry(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func addrOfForeignGS() uintptr
TEXT ·addrOfForeignGS(SB),NOSPLIT|NOFRAME,$0-8
	LEAQ ·foreignGS(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func addrOfHandler() uintptr
TEXT ·addrOfHandler(SB),NOSPLIT|NOFRAME,$0-8
	LEAQ ·sigHandler(SB), AX
	MOVQ AX, ret+0(FP)
	RET
