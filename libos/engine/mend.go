//go:build amd64

package engine

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/usermem"
)

// verdict is what a fault of the program turned out to be.
type verdict int

const (
	ownFault   verdict = iota // the program's
	systemCall                // the registers are as after a syscall instruction
	retry                     // the registers have been put right: continue
)

// mend looks at a fault that a patched site may be the reason of.
func (as *addressSpace) mend(ctx context.Context, m platform.MemoryManager, ac *arch.Context64, info *linux.SignalInfo) verdict {
	const siKernel = 0x80
	regs, rip := &ac.Regs.PtraceRegs, hostarch.Addr(ac.Regs.Rip)
	switch sig, addr := unix.Signal(info.Signo), info.Addr(); {
	case sig == unix.SIGSEGV && addr >= tableLow && addr < trampolinesLow:
		// The second platform has no table: a site jumped.
		if s, ok := as.siteAt(ctx, m, rip); ok {
			if s.shape != compare {
				regs.Rax = uint64(s.operand)
			}
			return call(regs, s.next)
		}
	case sig == unix.SIGSEGV && info.Code == siKernel:
		if s, ok := as.siteAt(ctx, m, rip-2); ok && s.shape == compare {
			s.compared(regs)
			return retry
		}
	case sig == unix.SIGILL:
		if s, ok := as.siteAt(ctx, m, rip-5); ok && s.shape == movEAX {
			return call(regs, s.next)
		}
		// The first byte, while another thread was patching.
		if _, ok := as.siteAt(ctx, m, rip); ok {
			return retry
		}
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

// siteAt returns the patched site that starts at an address. It waits for a
// patch in progress.
func (as *addressSpace) siteAt(ctx context.Context, m platform.MemoryManager, start hostarch.Addr) (site, bool) {
	as.patches.mu.Lock()
	defer as.patches.mu.Unlock()
	var code [jumpLen]byte
	if _, err := m.CopyIn(ctx, start, code[:], usermem.IOOpts{IgnorePermissions: true}); err != nil {
		return site{}, false
	}
	entry, ok := decodeJump(code)
	if !ok {
		return site{}, false
	}
	s, ok := sites.site(entry)
	return s, ok && s.start() == start
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
