package engine

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/sentry/platform/interrupt"
)

// guest is a program thread as run_amd64.s sees it. Addresses are of Go
// objects that Switch keeps alive.
type guest struct {
	regs, fp, fpSize uintptr
	// stop, when not 0, keeps the thread from being entered.
	stop uint32
	// tid is the host thread that is about to execute, or executes, the
	// program; 0 for none. Set before stop is looked at.
	tid atomic.Int32

	// What the program was left by.
	signo     uint64
	code      int64
	addr      uint64
	err, trap uint64
}

// switchContext implements platform.Context: a program thread that can
// execute in this process or on the second platform.
type switchContext struct {
	guest
	interrupt interrupt.Forwarder
	// stub is the thread on the second platform, once it has been there.
	stub atomic.Pointer[stubContext]
	// stubAS is where it executed last, if that was there; else nil.
	stubAS platform.AddressSpace
}

// stubContext is a thread on the second platform. It makes a pointer of an interface.
type stubContext struct{ platform.Context }

// Switch implements platform.Context.Switch.
func (c *switchContext) Switch(ctx context.Context, mm platform.MemoryManager, ac *arch.Context64, cpu int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	as := mm.AddressSpace().(*addressSpace)
	if err := as.occupy(ctx, mm); err != nil {
		return nil, hostarch.NoAccess, err
	}
	if !as.here.Load() && !as.p.slot.enter(as) {
		return c.switchStub(ctx, as, mm, ac, cpu)
	}
	if c.stubAS != nil {
		// Registers that the second platform still keeps come back first.
		if err := c.stub.Load().PullFullState(c.stubAS, ac); err != nil {
			return nil, hostarch.NoAccess, err
		}
		c.stubAS = nil
	}
	return c.switchHere(ac)
}

// stubManager is a memory manager as the second platform wants to see it.
type stubManager struct {
	platform.MemoryManager
	as platform.AddressSpace
}

func (m stubManager) AddressSpace() platform.AddressSpace { return m.as }

func (c *switchContext) switchStub(ctx context.Context, as *addressSpace, mm platform.MemoryManager, ac *arch.Context64, cpu int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	inner, err := as.stubSpace()
	if err != nil {
		return nil, hostarch.NoAccess, err
	}
	stub := c.stub.Load()
	if stub == nil {
		second, err := as.p.second()
		if err != nil {
			return nil, hostarch.NoAccess, err
		}
		stub = &stubContext{second.NewContext(ctx)}
		c.stub.Store(stub)
	}
	if c.stubAS == nil {
		stub.FullStateChanged()
	}
	c.stubAS = inner
	return stub.Switch(ctx, stubManager{mm, inner}, ac, cpu)
}

// stubSpace returns the address space on the second platform.
func (as *addressSpace) stubSpace() (platform.AddressSpace, error) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.stub == nil {
		second, err := as.p.second()
		if err != nil {
			return nil, err
		}
		stub, err := second.NewAddressSpace()
		if err != nil {
			return nil, err
		}
		as.stub = stub
	}
	return as.stub, nil
}

// occupy takes the host's ranges in the program's memory manager, once, so
// that it gives them to nobody.
func (as *addressSpace) occupy(ctx context.Context, mm platform.MemoryManager) error {
	as.mu.Lock()
	done := as.occupied
	as.occupied = true
	as.mu.Unlock()
	if done {
		return nil
	}
	for _, r := range hostRanges {
		if _, err := mm.MMap(ctx, memmap.MMapOpts{
			Addr: r.Start, Length: uint64(r.Length()), Fixed: true, Unmap: true, Private: true,
			Perms: hostarch.NoAccess, MaxPerms: hostarch.NoAccess,
		}); err != nil {
			return fmt.Errorf("reserving %v in a program's address space: %w", r, err)
		}
	}
	return nil
}

// switchHere executes the thread in this process until it is left.
func (c *switchContext) switchHere(ac *arch.Context64) (*linux.SignalInfo, hostarch.AccessType, error) {
	if !c.interrupt.Enable(c) {
		return nil, hostarch.NoAccess, platform.ErrContextInterrupt
	}
	defer c.interrupt.Disable()
	atomic.StoreUint32(&c.stop, 0)
	pointAt(&c.guest, ac)
	for {
		switch how := run(&c.guest); how {
		case noArea:
			if err := attachThread(); err != nil {
				return nil, hostarch.NoAccess, err
			}
			continue
		case notEntered, leftBySignal:
			return c.left(ac, how)
		default:
			return nil, hostarch.NoAccess, fmt.Errorf("engine: unknown result %d", how)
		}
	}
}

// Codes of SIGSYS, include/uapi/asm-generic/siginfo.h.
const sysUserDispatch = 2

// left turns what the program was left by into what the Sentry wants to know.
func (c *switchContext) left(ac *arch.Context64, how uint64) (*linux.SignalInfo, hostarch.AccessType, error) {
	sig := unix.Signal(c.signo)
	if how == leftBySignal {
		switch sig {
		case unix.SIGSYS:
			if c.code == sysUserDispatch {
				ac.Regs.Orig_rax = ac.Regs.Rax
				return nil, hostarch.NoAccess, nil
			}
		case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP:
			ac.Regs.Orig_rax = ^uint64(0)
			info := &linux.SignalInfo{Signo: int32(sig), Code: int32(c.code)}
			info.SetAddr(c.addr)
			return info, c.access(), platform.ErrContextSignal
		}
		ac.Regs.Orig_rax = ^uint64(0)
	}
	switch sig {
	case 0, unix.SIGCHLD, unix.SIGURG:
	default:
		// Meant for this process: raise it again, in host mode.
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return nil, hostarch.NoAccess, err
		}
	}
	return nil, hostarch.NoAccess, platform.ErrContextInterrupt
}

// access tells what a page fault wanted, from the processor's error code
// (Intel SDM vol. 3, 4.7).
func (c *switchContext) access() hostarch.AccessType {
	const pageFault, write, fetch = 14, 1 << 1, 1 << 4
	switch {
	case c.trap != pageFault:
		return hostarch.NoAccess
	case c.err&write != 0:
		return hostarch.Write
	case c.err&fetch != 0:
		return hostarch.Execute
	default:
		return hostarch.Read
	}
}

// NotifyInterrupt implements interrupt.Receiver.NotifyInterrupt.
func (c *switchContext) NotifyInterrupt() {
	atomic.StoreUint32(&c.stop, 1)
	if tid := c.tid.Load(); tid != 0 {
		unix.Tgkill(os.Getpid(), int(tid), unix.Signal(platform.SignalInterrupt))
	}
}

// Interrupt implements platform.Context.Interrupt. A thread whose next turn is
// on the other platform sees it there, or once more than needed.
func (c *switchContext) Interrupt() {
	c.interrupt.NotifyInterrupt()
	c.onStub(platform.Context.Interrupt)
}

// Preempt implements platform.Context.Preempt.
func (c *switchContext) Preempt() {
	c.interrupt.Preempt()
	c.onStub(platform.Context.Preempt)
}

// PullFullState implements platform.Context.PullFullState.
func (c *switchContext) PullFullState(_ platform.AddressSpace, ac *arch.Context64) error {
	if c.stubAS == nil {
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
func (c *switchContext) Release() { c.onStub(platform.Context.Release) }

// PrepareSleep implements platform.Context.PrepareSleep.
func (c *switchContext) PrepareSleep() { c.onStub(platform.Context.PrepareSleep) }

// PrepareUninterruptibleSleep implements platform.Context.PrepareUninterruptibleSleep.
func (c *switchContext) PrepareUninterruptibleSleep() {
	c.onStub(platform.Context.PrepareUninterruptibleSleep)
}

// PrepareStop implements platform.Context.PrepareStop.
func (c *switchContext) PrepareStop() { c.onStub(platform.Context.PrepareStop) }

// PrepareExecve implements platform.Context.PrepareExecve.
func (c *switchContext) PrepareExecve() { c.onStub(platform.Context.PrepareExecve) }

// PrepareExit implements platform.Context.PrepareExit.
func (c *switchContext) PrepareExit() { c.onStub(platform.Context.PrepareExit) }

// LastCPUNumber implements platform.Context.LastCPUNumber.
func (c *switchContext) LastCPUNumber() int32 { return 0 }
