package engine

import (
	"fmt"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// askEvery is how many Switches a thread makes outside before it asks for the
// slot again. A power of two.
const askEvery = 16

// move makes as the address space that c executes in.
func (c *switchContext) move(ctx context.Context, mm platform.MemoryManager, as *addressSpace) error {
	if c.as != nil {
		c.as.part(c)
		c.as = nil
	}
	if err := as.begin(ctx, mm); err != nil {
		return err
	}
	as.join(c)
	c.as, c.task = as, kernel.TaskFromContext(ctx)
	return nil
}

// claim asks for the slot, at the first Switch outside and then at every
// askEvery-th, and tells whether the address space has it.
func (c *switchContext) claim() bool {
	if c.stubAS != nil && c.outside%askEvery != 0 {
		return false
	}
	return c.as.p.slot.enter(c.as)
}

// switches reads the counts of Switches from another thread. The owner writes
// them without synchronization, which would cost more than entering does: a
// reader sees a count of a moment ago, in one piece as amd64 has it.
//
//go:norace
func (c *switchContext) switches() (inside, outside uint64) { return c.inside, c.outside }

// begin is for the first Switch in as: it takes the host's ranges in the
// program's memory manager, so that it gives them to nobody.
func (as *addressSpace) begin(ctx context.Context, mm platform.MemoryManager) error {
	as.mu.Lock()
	begun := as.mm != nil
	as.mm = mm
	as.mu.Unlock()
	if begun {
		return nil
	}
	as.p.counters.spaces.Add(1)
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

// stubManager is a memory manager as the second platform wants to see it.
type stubManager struct {
	platform.MemoryManager
	as platform.AddressSpace
}

func (m stubManager) AddressSpace() platform.AddressSpace { return m.as }

// switchStub executes the thread on the second platform until it is left.
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
	// An interrupt may have come before there was a thread to pass it to.
	if atomic.LoadUint32(&c.stop) != 0 && atomic.SwapUint32(&c.stop, 0) != 0 {
		return nil, hostarch.NoAccess, platform.ErrContextInterrupt
	}
	if s := c.takeSite(); s.shape == int80 {
		c.was32.after32(&ac.Regs.PtraceRegs, s.next)
	}
	if c.stubAS == nil {
		stub.FullStateChanged()
	}
	c.stubAS = inner
	c.outside++
	return stub.Switch(ctx, stubManager{mm, inner}, ac, cpu)
}

// leaveStub takes the registers that the second platform still keeps, and lets
// it count the thread among those that sleep.
func (c *switchContext) leaveStub(ac *arch.Context64) error {
	stub := c.stub.Load()
	if err := stub.PullFullState(c.stubAS, ac); err != nil {
		return err
	}
	stub.PrepareSleep()
	c.stubAS = nil
	return nil
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
		as.stubbed.Store(true)
		as.p.counters.stub.Add(1)
	}
	return as.stub, nil
}
