//go:build amd64

package engine

import (
	"fmt"
	"math"
	"sync"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// Platform implements platform.Platform: one address space in this process,
// the others on a second platform, which is started when it is needed first.
type Platform struct {
	platform.NoCPUPreemptionDetection
	platform.NoCPUNumbers
	platform.UseHostGlobalMemoryBarrier // the second platform's are other processes

	slot     slot
	counters counters
	second   func() (platform.Platform, error)
}

// setUp prepares the process, once.
var setUp = sync.OnceValue(func() error {
	if err := checkLayout(); err != nil {
		return err
	}
	if err := findHostRanges(); err != nil {
		return err
	}
	if err := initExtendedState(); err != nil {
		return err
	}
	var err error
	if pages, err = newCopies(); err != nil {
		return err
	}
	if sites, err = newTrampolines(); err != nil {
		return err
	}
	return installHandlers()
})

// sites are the patched system call sites of all programs, and pages the
// copies of text that they are patched in.
var (
	sites *trampolines
	pages *copies
)

// New makes the platform.
func New(opts platform.Options) (*Platform, error) {
	if err := setUp(); err != nil {
		return nil, fmt.Errorf("in-process engine: %w", err)
	}
	// The second platform's patched call sites lead into its own processes;
	// a program that has them could not move into this one.
	opts.DisableSyscallPatching = true
	constructor, err := platform.Lookup(Systrap)
	if err != nil {
		return nil, err
	}
	p := &Platform{second: sync.OnceValues(func() (platform.Platform, error) { return startSecond(constructor, opts) })}
	p.slot.counters = &p.counters
	p.SetPolicy(DefaultPolicy())
	return p, nil
}

// SetPolicy says what decides which address space is in this process. It may be
// called at any time; the zero Policy moves one in whenever it can.
func (p *Platform) SetPolicy(policy Policy) {
	p.slot.mu.Lock()
	defer p.slot.mu.Unlock()
	p.slot.election.Policy = policy
}

// Stats returns where programs have executed so far.
func (p *Platform) Stats() Stats { return p.counters.snapshot() }

// SupportsAddressSpaceIO implements platform.Platform.SupportsAddressSpaceIO.
func (*Platform) SupportsAddressSpaceIO() bool { return true }

// MapUnit implements platform.Platform.MapUnit: a mapping costs the same
// whatever its size.
func (*Platform) MapUnit() uint64 { return 0 }

// MinUserAddress implements platform.Platform.MinUserAddress.
func (*Platform) MinUserAddress() hostarch.Addr { return platform.SystemMMapMinAddr() }

// MaxUserAddress implements platform.Platform.MaxUserAddress.
func (*Platform) MaxUserAddress() hostarch.Addr { return maxUserAddress }

// ConcurrencyCount implements platform.Platform.ConcurrencyCount: the host's
// scheduler shares the processors among all threads.
func (*Platform) ConcurrencyCount() int { return math.MaxInt }

// SeccompInfo implements platform.Platform.SeccompInfo.
func (*Platform) SeccompInfo() platform.SeccompInfo {
	return platform.StaticSeccompInfo{PlatformName: Inproc}
}

// NewAddressSpace implements platform.Platform.NewAddressSpace.
func (p *Platform) NewAddressSpace() (platform.AddressSpace, error) {
	return newAddressSpace(p), nil
}

// NewContext implements platform.Platform.NewContext.
func (*Platform) NewContext(context.Context) platform.Context { return new(switchContext) }

type constructor struct{ platform.Constructor }

func (constructor) New(opts platform.Options) (platform.Platform, error) { return New(opts) }

func (constructor) OpenDevice(string) (*fd.FD, error) { return nil, nil }

func (constructor) Requirements() platform.Requirements {
	return platform.Requirements{RequiresCapSysPtrace: true}
}

func init() {
	platform.Register(Inproc, constructor{})
}
