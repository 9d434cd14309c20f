//go:build amd64

package engine

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// verdict is what a fault of the program turned out to be.
type verdict int

const (
	ownFault   verdict = iota // the program's
	systemCall                // the registers are as after a syscall instruction
	retry                     // the registers, or the memory, have been put right: continue
)

// Codes of SIGSEGV, include/uapi/asm-generic/siginfo.h.
const (
	segvPKUErr = 4    // access to memory with a protection key
	siKernel   = 0x80 // no page fault
)

// mend looks at a fault in this process that a patched site may be the reason
// of: the program has read its text, or come to the middle of a site, either by
// a jump or because it was there when the site was patched. version is the
// patches' before the program was entered.
func (as *addressSpace) mend(regs *linux.PtraceRegs, info *linux.SignalInfo, version uint64) verdict {
	rip := hostarch.Addr(regs.Rip)
	sig := unix.Signal(info.Signo)
	if sig != unix.SIGSEGV && sig != unix.SIGILL {
		return ownFault
	}
	if sig == unix.SIGSEGV && info.Code == segvPKUErr && as.unpatch(hostarch.Addr(info.Addr())) {
		return retry
	}
	if table := info.Addr(); sig == unix.SIGSEGV && table >= tableLow && table < trampolinesLow && as.unpatch(rip) {
		return retry // the program denies itself what has no key of its own
	}
	if s, ok := as.siteAround(rip); ok {
		switch {
		case s.shape == movEAX && rip == s.next-syscallLen:
			return call(regs, s.next)
		case s.shape == compare && rip == s.next:
			s.compared(regs)
			return retry
		}
		// In the middle of an instruction: it goes on with what stood there.
		as.unpatch(rip)
		return retry
	}
	if as.patches.version.Load() != version {
		return retry // the reason may be gone
	}
	return ownFault
}

// call sets the registers as the syscall instruction before next leaves them.
// Of the number Linux takes the lower half (arch/x86/entry/syscall_64.c).
func call(regs *linux.PtraceRegs, next hostarch.Addr) verdict {
	regs.Rip, regs.Orig_rax = uint64(next), uint64(int32(regs.Rax))
	regs.Rcx, regs.R11 = regs.Rip, regs.Eflags
	return systemCall
}

// compared executes the second instruction of a compare site.
func (s site) compared(regs *linux.PtraceRegs) {
	regs.Eflags = comparedFlags(regs.Eflags, regs.Rax, s.operand)
	regs.Rip = uint64(s.next + compareLen)
}

// leaveTrampoline moves registers that point into a trampoline to where the
// program is by its own instructions.
func leaveTrampoline(regs *linux.PtraceRegs) {
	entry, ok := inTrampoline(regs.Rip)
	if !ok {
		return
	}
	s, ok := sites.site(entry)
	if !ok {
		return
	}
	regs.Rip = uint64(s.next - syscallLen)
	if s.shape != compare {
		regs.Rax = uint64(s.operand)
	}
}
