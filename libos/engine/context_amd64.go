package engine

import (
	"errors"
	"math/bits"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// guest is a program thread as run_amd64.s sees it. Addresses are of Go
// objects that Switch keeps alive.
type guest struct {
	regs, fp, fpSize uintptr
	// stop, when not 0, keeps the thread from being entered: it is interrupted.
	stop uint32
	// tid is the host thread that is about to execute, or executes, the
	// program; 0 for none. run_amd64.s sets it before it looks at stop.
	tid int32

	// What the program was left by.
	signo     uint64
	code      int64
	addr      uint64
	err, trap uint64
	arch      uint64
	// pending are signals that arrived on the way, bit n-1 for n.
	pending uint64
}

// switchContext implements platform.Context: a program thread that can
// execute in this process or on the second platform.
type switchContext struct {
	guest
	// stub is the thread on the second platform, once it has been there.
	stub atomic.Pointer[stubContext]
	// stubAS is where it executed last, if that was there; else nil.
	stubAS platform.AddressSpace
	// as is the address space of its last Switch.
	as *addressSpace
	// task is whose thread it is, once it has executed.
	task *kernel.Task
	// poked: a tracer has had the opportunity to write to the program's text.
	poked bool
	// inside and outside count its Switches in as.
	inside, outside uint64
	// site is the patched one that the program left by last, until the second
	// instruction of a compare has been executed; or the last int $0x80.
	site site
	// returned: the last call was a return from a signal handler, perhaps to the
	// middle of a patched site.
	returned bool
	// was32 are the registers to give back after a call by int $0x80: of a
	// thread with a tracer, whose state is pulled before the call, too, not
	// before the next Switch.
	was32    registers32
	traced32 bool

	// Numbers of system calls by traps and by patched sites.
	traps, calls uint64
}

// stubContext is a thread on the second platform. It makes a pointer of an interface.
type stubContext struct{ platform.Context }

// Switch implements platform.Context.Switch.
func (c *switchContext) Switch(ctx context.Context, mm platform.MemoryManager, ac *arch.Context64, cpu int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	as := mm.AddressSpace().(*addressSpace)
	if c.as != as {
		if err := c.move(ctx, mm, as); err != nil {
			return nil, hostarch.NoAccess, err
		}
	}
	if c.poked {
		c.poked = false
		as.unpatchAll()
	}
	if !as.here.Load() && !c.claim() {
		return c.switchStub(ctx, as, mm, ac, cpu)
	}
	if c.stubAS != nil {
		if err := c.leaveStub(ac); err != nil {
			return nil, hostarch.NoAccess, err
		}
	}
	c.inside++
	return c.switchHere(ctx, as, mm, ac)
}

// switchHere executes the thread in this process until it is left.
func (c *switchContext) switchHere(ctx context.Context, as *addressSpace, mm platform.MemoryManager, ac *arch.Context64) (*linux.SignalInfo, hostarch.AccessType, error) {
	pointAt(&c.guest, ac)
	s := c.takeSite()
	if c.returned {
		c.returned = false
		s, _ = as.siteAround(hostarch.Addr(ac.Regs.Rip))
	}
	switch {
	case s.shape == compare && ac.Regs.Rip == uint64(s.next):
		s.compared(&ac.Regs.PtraceRegs)
		if ac.SingleStep() {
			return &linux.SignalInfo{Signo: int32(unix.SIGTRAP), Code: trapTrace}, hostarch.NoAccess, platform.ErrContextSignal
		}
	case s.shape == int80:
		c.was32.after32(&ac.Regs.PtraceRegs, s.next)
	}
	for {
		version := as.patches.version.Load()
		how := run(&c.guest)
		if atomic.LoadUint32(&c.stop) != 0 {
			as.noteLeft()
		}
		if how == noArea {
			if err := attachThread(); err != nil {
				return nil, hostarch.NoAccess, err
			}
			continue
		}
		if how == leftBySignal {
			how = c.calledBySignal(&ac.Regs.PtraceRegs)
		}
		if err := c.raise(); err != nil {
			return nil, hostarch.NoAccess, err
		}
		if how >= leftByCall {
			c.calls++
			c.site = sites.called(how - leftByCall)
			call(&ac.Regs.PtraceRegs, c.site.next)
			c.returned = ac.Regs.Orig_rax == unix.SYS_RT_SIGRETURN
			return nil, hostarch.NoAccess, nil
		}
		info, err := c.left(ac, how)
		if err == nil && c.arch == auditArchI386 {
			was, ok := call32(&ac.Regs.PtraceRegs)
			if !ok {
				ac.Regs.Rax = errnoResult(unix.ENOSYS)
				continue
			}
			c.traps++
			task := kernel.TaskFromContext(ctx)
			c.traced32 = task != nil && task.Tracer() != nil
			c.was32, c.site = was, site{shape: int80, next: hostarch.Addr(ac.Regs.Rip)}
			return nil, hostarch.NoAccess, nil
		}
		if err == nil {
			c.traps++
			c.returned = ac.Regs.Orig_rax == unix.SYS_RT_SIGRETURN
			if next := ac.Regs.Rip; as.patches.trapped(next) {
				as.patch(ctx, mm, hostarch.Addr(next), ac.Regs.Rax)
			}
			return nil, hostarch.NoAccess, nil
		}
		if info == nil {
			return nil, hostarch.NoAccess, err
		}
		switch as.mend(&ac.Regs.PtraceRegs, info, version) {
		case ownFault:
			return info, c.access(), err
		case systemCall:
			return nil, hostarch.NoAccess, nil
		}
	}
}

const (
	trapTrace       = 2           // code of SIGTRAP after a single step
	sysUserDispatch = 2           // code of SIGSYS, include/uapi/asm-generic/siginfo.h
	auditArchI386   = 0x4000_0003 // AUDIT_ARCH_I386, include/uapi/linux/audit.h
)

// errnoResult is what a system call that failed leaves in RAX.
func errnoResult(e unix.Errno) uint64 { return -uint64(e) }

// takeSite returns the patched site that the program left by, if that was how
// it was left the last time.
func (c *switchContext) takeSite() site {
	s := c.site
	c.site = site{}
	return s
}

// calledBySignal tells how the program was left by a signal: a few are calls
// from patched sites.
func (c *switchContext) calledBySignal(regs *linux.PtraceRegs) uint64 {
	if regs.Rip == gsNotOurs {
		if unix.Signal(c.signo) != unix.SIGILL { // not by callEntry's own instruction
			c.pending |= 1 << (c.signo - 1)
		}
		return regs.R11
	}
	entry, ok := inTrampoline(regs.Rip)
	if !ok {
		return leftBySignal
	}
	switch unix.Signal(c.signo) {
	case unix.SIGTRAP: // a single step over the jump of a compare site is one over its syscall
		if sites.called(uint64(entry)).shape == compare {
			return leftByCall + uint64(entry)
		}
	case unix.SIGSEGV, unix.SIGBUS: // the GS base is the program's own, and there is no memory
		if c.code > 0 {
			return leftByCall + uint64(entry)
		}
	}
	return leftBySignal
}

// left turns the signal that the program was left by, or not entered for, into
// what the Sentry wants to know: no error is a system call.
func (c *switchContext) left(ac *arch.Context64, how uint64) (*linux.SignalInfo, error) {
	sig := unix.Signal(c.signo)
	if how == leftBySignal && sig == unix.SIGSYS && c.code == sysUserDispatch {
		if c.arch != auditArchI386 { // which changes no register but RAX
			call(&ac.Regs.PtraceRegs, hostarch.Addr(ac.Regs.Rip))
		}
		return nil, nil
	}
	if how == leftBySignal {
		leaveTrampoline(&ac.Regs.PtraceRegs)
		ac.Regs.Orig_rax = ^uint64(0)
	}
	switch sig {
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP:
		info := &linux.SignalInfo{Signo: int32(sig), Code: int32(c.code)}
		info.SetAddr(c.addr)
		return info, platform.ErrContextSignal
	case 0:
	default:
		c.pending |= 1 << (sig - 1)
		if err := c.raise(); err != nil {
			return nil, err
		}
	}
	atomic.StoreUint32(&c.stop, 0)
	return nil, platform.ErrContextInterrupt
}

// raise sends signals that were meant for this process again, now that it is
// in host mode. The interrupt signal has done its work.
func (c *switchContext) raise() error {
	for c.pending != 0 {
		sig := unix.Signal(bits.TrailingZeros64(c.pending) + 1)
		c.pending &= c.pending - 1
		if sig == unix.Signal(platform.SignalInterrupt) {
			continue
		}
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// access tells what a page fault wanted, from the processor's error code
// (Intel SDM vol. 3, 4.7).
func (c *switchContext) access() hostarch.AccessType {
	const pageFault, write, fetch = 14, 1 << 1, 1 << 4
	switch {
	case c.trap != pageFault || unix.Signal(c.signo) != unix.SIGSEGV || c.code <= 0:
		return hostarch.NoAccess // another fault, or a page that cannot be had: SIGBUS
	case c.err&write != 0:
		return hostarch.Write
	case c.err&fetch != 0:
		return hostarch.Execute
	default:
		return hostarch.Read
	}
}

// Interrupt implements platform.Context.Interrupt. A thread whose next turn is
// on the other platform sees it there, or once more than needed.
func (c *switchContext) Interrupt() {
	c.halt()
	c.onStub(platform.Context.Interrupt)
}

// halt ends the thread's Switch in this process with ErrContextInterrupt: the
// one under way, or else the next.
func (c *switchContext) halt() {
	atomic.StoreUint32(&c.stop, 1)
	if tid := atomic.LoadInt32(&c.tid); tid != 0 {
		unix.Tgkill(os.Getpid(), int(tid), unix.Signal(platform.SignalInterrupt))
	}
}

// Forget makes up for interrupts that have been seen to otherwise: they do not
// end the next Switch. The caller is the thread itself, which then has to look
// whether there is another reason for one. What slot needs is not lost: it has
// changed the address space before it interrupts, and Switch looks at that.
func (c *switchContext) Forget() {
	if atomic.LoadUint32(&c.stop) != 0 {
		atomic.StoreUint32(&c.stop, 0)
	}
}

// executing tells whether the thread is in the program, or about to be, in this process.
func (c *switchContext) executing() bool { return atomic.LoadInt32(&c.tid) != 0 }

// Preempt implements platform.Context.Preempt.
func (c *switchContext) Preempt() {
	if c.executing() {
		c.halt()
	}
	c.onStub(platform.Context.Preempt)
}

// PullFullState implements platform.Context.PullFullState.
func (c *switchContext) PullFullState(_ platform.AddressSpace, ac *arch.Context64) error {
	if c.stubAS == nil {
		if c.site.shape == int80 && !c.traced32 {
			c.was32.after32(&ac.Regs.PtraceRegs, c.site.next)
		}
		showUnused(ac.FloatingPointData().Slice())
		return nil
	}
	return c.stub.Load().PullFullState(c.stubAS, ac)
}

// FullStateChanged implements platform.Context.FullStateChanged.
func (c *switchContext) FullStateChanged() {
	if c.stubAS != nil {
		c.stub.Load().FullStateChanged()
	}
}

// onStub calls f with the thread on the second platform, if it has been there.
func (c *switchContext) onStub(f func(platform.Context)) {
	if stub := c.stub.Load(); stub != nil {
		f(stub)
	}
}

// Release implements platform.Context.Release.
func (c *switchContext) Release() {
	if c.as != nil {
		c.as.part(c)
		c.as = nil
	}
	c.onStub(platform.Context.Release)
}

// PrepareSleep implements platform.Context.PrepareSleep.
func (c *switchContext) PrepareSleep() { c.onStub(platform.Context.PrepareSleep) }

// PrepareUninterruptibleSleep implements platform.Context.PrepareUninterruptibleSleep.
func (c *switchContext) PrepareUninterruptibleSleep() {
	c.onStub(platform.Context.PrepareUninterruptibleSleep)
}

// PrepareStop implements platform.Context.PrepareStop. A tracer does nothing to
// a thread before this, and may be gone when it goes on.
func (c *switchContext) PrepareStop() {
	c.poked = c.poked || c.task == nil || c.task.Tracer() != nil
	c.onStub(platform.Context.PrepareStop)
}

// PrepareExecve implements platform.Context.PrepareExecve.
func (c *switchContext) PrepareExecve() { c.onStub(platform.Context.PrepareExecve) }

// PrepareExit implements platform.Context.PrepareExit.
func (c *switchContext) PrepareExit() { c.onStub(platform.Context.PrepareExit) }

// LastCPUNumber implements platform.Context.LastCPUNumber.
func (c *switchContext) LastCPUNumber() int32 { return 0 }
