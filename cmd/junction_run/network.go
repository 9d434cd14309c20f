package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	sentry "gvisor.dev/gvisor/pkg/sentry/socket/netstack"

	"junction/cmd/junction_run/internal/cli"
	"junction/direct"
	"junction/internal/monitor/client"
	"junction/internal/monitor/mover"
	"junction/libos/netstack"
	modeswitch "junction/switch"
)

// network is an instance's TCP/IP stack and what is below it: link endpoint and
// capture file, and a device of its own or a lease of the monitor's. What there is not
// is nil.
type network struct {
	tcpip   *netstack.Network
	link    *modeswitch.Endpoint
	device  direct.Device
	lease   *client.Instance
	mover   *mover.Mover       // with a lease
	heed    context.CancelFunc // ends followMonitor
	capture *modeswitch.Capture
	file    *os.File
}

// openInBackground begins to open the network and returns a function that
// waits for the outcome, which is the same at each call.
func openInBackground(ctx context.Context, s *cli.Settings, obey client.Obey, logger *slog.Logger) func() (*network, error) {
	opened := sync.OnceValues(func() (*network, error) { return openNetwork(ctx, s, obey, logger) })
	go opened()
	return opened
}

// openNetwork makes what s asks for. ctx ends a wait for the NIC. obey does what
// operators order through the monitor.
func openNetwork(ctx context.Context, s *cli.Settings, obey client.Obey, logger *slog.Logger) (n *network, err error) {
	n = new(network)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	opts := netstackOptions(s)
	switch {
	case s.Lease:
		err = n.openServer(ctx, s, &opts, obey, logger)
	case s.Mode == cli.ModeDirect:
		err = n.openDirect(ctx, s, logger)
	}
	if err != nil {
		return n, err
	}
	opts.Link = n.link
	if n.tcpip, err = netstack.New(opts); err == nil && s.Lease && s.Mode == cli.ModeDirect {
		err = n.goDirect(ctx, s, logger)
	}
	return n, err
}

// openDirect opens device, capture file and link endpoint.
func (n *network) openDirect(ctx context.Context, s *cli.Settings, logger *slog.Logger) error {
	if err := n.openCapture(s.Pcap); err != nil {
		return err
	}
	opts := deviceOptions(s)
	opts.Logger = logger
	dev, err := direct.Open(ctx, opts)
	if err != nil {
		return deviceError(ctx, s.NIC, err)
	}
	n.device = dev
	mode := dev.Mode()
	logger.Info("direct mode", "nic", mode.NIC, "driver", mode.Driver, "attach", mode.Attach, "copy", mode.Copy,
		"need_wakeup", mode.NeedWakeup, "outlet", cmp.Or(string(mode.Outlet), "none"), "queues", mode.Queues, "mtu", dev.MTU(), "mac", dev.MAC().String())
	n.link, err = modeswitch.New(modeswitch.Options{Backend: backend(dev), Spin: s.Spin, Capture: n.capture})
	return err
}

func (n *network) openCapture(path string) (err error) {
	if path == "" {
		return nil
	}
	if n.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return fmt.Errorf("--pcap: %w; give a file in a directory that this user may write to", err)
	}
	n.capture, err = modeswitch.NewCapture(n.file)
	return err
}

func deviceOptions(s *cli.Settings) direct.Options {
	return direct.Options{NIC: s.NIC, Driver: s.Driver, Queues: s.Queues, MTU: s.MTU, MAC: s.MAC, NoOutlet: s.NoOutlet}
}

// backend describes a device to the link endpoint.
func backend(d direct.Device) modeswitch.Backend {
	o := d.Offloads()
	return modeswitch.Backend{
		Queues:     modeswitch.Queues(d.Queues()),
		MAC:        d.MAC(),
		MTU:        d.MTU(),
		TXChecksum: o.TXChecksum,
		GSOMax:     o.GSOMax,
		RXTrusted:  o.RXTrusted, RXJoined: o.RXJoined,
	}
}

// deviceError adds to an error of direct.Open what else there is to use, and
// tells an interrupted set-up from a failed one.
func deviceError(ctx context.Context, nic string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, direct.ErrNoNIC) {
		names := candidateNICs()
		if len(names) == 0 {
			names = []string{"none"}
		}
		return fmt.Errorf("--nic %s: %w; NICs here that may be used: %s", nic, err, strings.Join(names, ", "))
	}
	return fmt.Errorf("--nic %s: %w", nic, err)
}

func netstackOptions(s *cli.Settings) netstack.Options {
	// The counters are those that the libOS shows in /proc/net.
	o := netstack.Options{Addresses: s.Prefixes, Gateways: s.Gateways, MTU: s.MTU, Stats: sentry.Metrics}
	for _, n := range s.Neighbours {
		o.Neighbors = append(o.Neighbors, netstack.Neighbor{IP: n.Addr, MAC: n.MAC})
	}
	return o
}

// close ends traffic, then gives the NIC back. Statistics stay readable.
func (n *network) close() (err error) {
	if n.tcpip != nil {
		n.tcpip.Close()
	} else if n.link != nil {
		n.link.Close()
	}
	if n.device != nil {
		err = n.device.Close()
	}
	if n.mover != nil {
		err = errors.Join(err, n.mover.Close())
	}
	if n.lease != nil {
		if n.heed != nil {
			n.heed()
		}
		n.lease.Close()
	}
	if n.capture != nil {
		err = errors.Join(err, n.capture.Err())
	}
	if n.file != nil {
		err = errors.Join(err, n.file.Close())
	}
	return err
}
