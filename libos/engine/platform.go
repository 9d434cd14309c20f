//go:build amd64

package engine

import (
	"fmt"
	"sync"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// Name is the engine's name among the Sentry's platforms.
const Name = "inproc"

// Platform implements platform.Platform: one address space in this process,
// the others on a second platform.
type Platform struct {
	platform.Platform // the second one; methods below replace its own
	slot              slot
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
	return installHandlers()
})

// New makes the platform.
func New(opts platform.Options) (*Platform, error) {
	if err := setUp(); err != nil {
		return nil, fmt.Errorf("in-process engine: %w", err)
	}
	second, err := platform.Lookup("systrap")
	if err != nil {
		return nil, err
	}
	p, err := second.New(opts)
	if err != nil {
		return nil, err
	}
	return &Platform{Platform: p}, nil
}

// MaxUserAddress implements platform.Platform.MaxUserAddress.
func (p *Platform) MaxUserAddress() hostarch.Addr { return maxUserAddress }

// NewAddressSpace implements platform.Platform.NewAddressSpace.
func (p *Platform) NewAddressSpace() (platform.AddressSpace, error) {
	return &addressSpace{p: p}, nil
}

// NewContext implements platform.Platform.NewContext.
func (p *Platform) NewContext(ctx context.Context) platform.Context {
	return &switchContext{stub: p.Platform.NewContext(ctx)}
}

type constructor struct{ platform.Constructor }

func (constructor) New(opts platform.Options) (platform.Platform, error) { return New(opts) }

func (constructor) OpenDevice(string) (*fd.FD, error) { return nil, nil }

func (constructor) Requirements() platform.Requirements {
	return platform.Requirements{RequiresCapSysPtrace: true}
}

func init() {
	platform.Register(Name, constructor{})
}
