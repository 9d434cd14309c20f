package engine

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// A 64-bit program can make system calls of 32-bit programs, by int $0x80: with
// numbers of their own (arch/x86/entry/syscalls/syscall_32.tbl), and the lower
// halves of RBX, RCX, RDX, RSI, RDI and RBP as arguments. The Sentry does not
// know them. Those with the same arguments as a 64-bit call are made by that.

// calls32 are these calls by number. The others, which have structures of
// their own, or are rare, fail with ENOSYS.
var calls32 = map[uint32]uint64{
	restart32: unix.SYS_RESTART_SYSCALL,
	1:         unix.SYS_EXIT, 3: unix.SYS_READ, 4: unix.SYS_WRITE, 5: unix.SYS_OPEN, 6: unix.SYS_CLOSE, 8: unix.SYS_CREAT,
	9: unix.SYS_LINK, 10: unix.SYS_UNLINK, 12: unix.SYS_CHDIR, 15: unix.SYS_CHMOD, 19: unix.SYS_LSEEK, 20: unix.SYS_GETPID,
	27: unix.SYS_ALARM, 29: unix.SYS_PAUSE, 33: unix.SYS_ACCESS, 36: unix.SYS_SYNC, 37: unix.SYS_KILL, 38: unix.SYS_RENAME,
	39: unix.SYS_MKDIR, 40: unix.SYS_RMDIR, 41: unix.SYS_DUP, 42: unix.SYS_PIPE, 57: unix.SYS_SETPGID, 60: unix.SYS_UMASK,
	63: unix.SYS_DUP2, 64: unix.SYS_GETPPID, 65: unix.SYS_GETPGRP, 66: unix.SYS_SETSID, 83: unix.SYS_SYMLINK,
	85: unix.SYS_READLINK, 91: unix.SYS_MUNMAP, 118: unix.SYS_FSYNC, 122: unix.SYS_UNAME, 125: unix.SYS_MPROTECT,
	132: unix.SYS_GETPGID, 133: unix.SYS_FCHDIR, 147: unix.SYS_GETSID, 148: unix.SYS_FDATASYNC, 158: unix.SYS_SCHED_YIELD,
	168: unix.SYS_POLL, 183: unix.SYS_GETCWD, 199: unix.SYS_GETUID, 200: unix.SYS_GETGID, 201: unix.SYS_GETEUID,
	202: unix.SYS_GETEGID, 219: unix.SYS_MADVISE, 220: unix.SYS_GETDENTS64, 224: unix.SYS_GETTID, 252: unix.SYS_EXIT_GROUP,
	295: unix.SYS_OPENAT, 355: unix.SYS_GETRANDOM,
}

const (
	restart32 = 0
	lseek32   = 19 // the one whose second argument is signed
)

// registers32 are the registers that a 64-bit call has arguments in, and its
// number, as int $0x80 was executed with them.
type registers32 struct{ rax, rdi, rsi, rdx, r10, r8, r9 uint64 }

// call32 turns registers that have executed int $0x80 into those of a 64-bit
// call, and returns what they were. It returns false if there is no such call.
func call32(regs *linux.PtraceRegs) (was registers32, ok bool) {
	low := func(r uint64) uint64 { return uint64(uint32(r)) }
	nr, ok := calls32[uint32(regs.Rax)]
	if !ok {
		return was, false
	}
	was = registers32{regs.Rax, regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9}
	second := low(regs.Rcx)
	if uint32(regs.Rax) == lseek32 {
		second = uint64(int32(regs.Rcx))
	}
	regs.Rax, regs.Orig_rax = nr, nr
	regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = low(regs.Rbx), second, low(was.rdx), low(was.rsi), low(was.rdi), low(regs.Rbp)
	return was, true
}

// after32 gives registers back what call32 took, after the call, which ended
// at next or is to be made again.
func (was *registers32) after32(regs *linux.PtraceRegs, next hostarch.Addr) {
	switch hostarch.Addr(regs.Rip) {
	case next:
		regs.Orig_rax = was.rax // for another time
	case next - syscallLen: // int $0x80 is as long
		if regs.Rax != unix.SYS_RESTART_SYSCALL {
			regs.Rax = was.rax
		} else {
			regs.Rax = restart32
		}
	default:
		return // sigreturn or exec: they have other registers
	}
	regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = was.rdi, was.rsi, was.rdx, was.r10, was.r8, was.r9
}
