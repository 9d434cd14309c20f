package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"junction/coresched/live"
	"junction/direct"
	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/portmap"
	"junction/switch/protocol"
)

// Options are the parameters of Run.
type Options struct {
	// Socket is the path to listen at.
	Socket string
	// Uplink is the NIC.
	Uplink wire.Setup
	// DirectQueues is how many instances may be in direct mode at once. Default:
	// steer.DefaultVFs.
	DirectQueues int
	// NoOutlets: they cut TCP segments and make checksums themselves (direct.Options.NoOutlet).
	NoOutlets bool
	// Auto is the policy of mode switches. Default: off; with all queues.
	Auto wire.AutoSettings
	// Shared are the shared addresses, with the prefix lengths of their
	// networks, one at least.
	Shared []netip.Prefix
	// Gateways are the default routers, one for each IP version at most.
	Gateways []netip.Addr
	// Dedicated are the networks that instances may ask for addresses of.
	Dedicated []netip.Prefix
	// Server is the command line of the network server, to which the socket's
	// path is added.
	Server []string
	// HangAfter is how long a network server may give no sign of life before
	// it is killed and replaced, unless it only waits for a processor (see
	// patience). Default 250 ms.
	HangAfter time.Duration
	// MinPort is the lowest port that instances may bind. Default: all.
	MinPort uint16
	// Metrics is the address to serve Prometheus at; none: nowhere.
	Metrics string
	// Rings are the sizes of ring pairs. Default: room for 2700 frames of 1514
	// bytes each way, somewhat more than a NIC's queue holds, so that a burst from
	// it is not lost here.
	Rings ipc.Options
	// Sched are the programs of core scheduling.
	Sched live.Options
	// Logger receives what happens. Default: discarded.
	Logger *slog.Logger

	// AtSwitch, if not nil, is called before each thing that the monitor does in a mode
	// switch, and with each answer ("received ..."); the switch waits for it. StepTime, if
	// not nil, is how long a step may take. Both are for tests of faults.
	AtSwitch func(instance uint32, what string)
	StepTime func(protocol.Step) time.Duration

	fabric   fabric        // instead of the uplink's, for tests
	autoHold time.Duration // auto.Options.Hold, for tests
}

// Limits of Options.HangAfter: below, an idle server would be taken for one that hangs.
const (
	defaultHangAfter = 250 * time.Millisecond
	minHangAfter     = 10 * time.Millisecond
)

// ErrOptions is returned, wrapped, for options that cannot be met.
var ErrOptions = errors.New("monitor configuration")

func (o *Options) check() error {
	if o.HangAfter == 0 {
		o.HangAfter = defaultHangAfter
	}
	if o.Rings == (ipc.Options{}) {
		o.Rings.Buffers = 1 << 15
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Sched.Logger = o.Logger
	o.Sched.State = filepath.Join(o.stateDir(), "sched.json")
	if len(o.Shared) == 0 || len(o.Server) == 0 || o.Socket == "" || o.Uplink.NIC == "" {
		return fmt.Errorf("%w: a socket, a NIC, a shared address and a network server's path are needed", ErrOptions)
	}
	if o.HangAfter < minHangAfter {
		return fmt.Errorf("%w: hang-after %v: accepted: %v or more", ErrOptions, o.HangAfter, minHangAfter)
	}
	if err := o.checkAuto(&o.Auto); err != nil {
		return err
	}
	for _, g := range o.Gateways {
		if !slices.ContainsFunc(o.Shared, func(p netip.Prefix) bool { return p.Contains(g) || g.IsLinkLocalUnicast() && p.Addr().Is6() }) {
			return fmt.Errorf("%w: gateway %v is in no network of %v; give an address in one of them", ErrOptions, g, o.Shared)
		}
	}
	return nil
}

// CheckNIC tells whether the uplink's NIC is one that can be served. With a
// predecessor's state it does not look: instances wait, so a NIC that is gone is
// waited for, too. Errors: direct.Check's.
func (o *Options) CheckNIC(ctx context.Context) error {
	if _, err := os.Stat(o.stateDir()); err == nil {
		return nil
	}
	if err := direct.Check(ctx, o.Uplink.NIC, o.Uplink.Driver); err != nil {
		return fmt.Errorf("uplink %s: %w", o.Uplink.NIC, err)
	}
	return nil
}

// portmapOptions begin a portmap.
func (o *Options) portmapOptions() (portmap.Options, error) {
	p := portmap.Options{Unowned: serverMode, Share: portmap.DefaultShare}
	for _, s := range o.Shared {
		p.Shared = append(p.Shared, s.Addr())
	}
	return p, randomize(&p)
}

// prefixFor finds the network that a dedicated address is in: that of the
// shared addresses if it is in theirs too, for that is the link's.
func (o *Options) prefixFor(a netip.Addr) (netip.Prefix, error) {
	holds := func(p netip.Prefix) bool { return p.Contains(a) }
	at := slices.IndexFunc(o.Dedicated, holds)
	if at < 0 {
		return netip.Prefix{}, fmt.Errorf("%w: address %v is in none of the networks for dedicated addresses %v; choose one there, or start the monitor with --dedicated", ErrOptions, a, o.Dedicated)
	}
	if on := slices.IndexFunc(o.Shared, holds); on >= 0 {
		return netip.PrefixFrom(a, o.Shared[on].Bits()), nil
	}
	return netip.PrefixFrom(a, o.Dedicated[at].Bits()), nil
}
