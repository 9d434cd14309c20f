package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"junction/cmd/junction_run/internal/cli"
	"junction/internal/monitor/client"
	"junction/internal/monitor/mover"
	"junction/internal/monitor/wire"
	"junction/libos/netstack"
	"junction/portmap"
	"junction/portmap/table"
	modeswitch "junction/switch"
	"junction/switch/protocol"
)

// joinTime is how long the monitor has to give an instance its lease: it waits
// for its network server.
const joinTime = 15 * time.Second

// openServer joins the monitor, in server mode, and opens capture file and link endpoint. It adds
// to opts what the lease says.
func (n *network) openServer(ctx context.Context, s *cli.Settings, opts *netstack.Options, obey client.Obey, logger *slog.Logger) error {
	if err := n.openCapture(s.Pcap); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	lease, err := client.JoinInstance(limited, s.Socket, s.Name, wire.Join{Addrs: s.Dedicated, Priority: s.Priority}, obey)
	if err != nil {
		return leaseError(ctx, s.Mode, err)
	}
	n.lease = lease
	l := lease.Lease()
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return fmt.Errorf("monitor at %s: %w", s.Socket, err)
	}
	logger.Info("server mode", "socket", s.Socket, "id", l.ID, "shared", l.Shared, "addresses", l.Prefixes, "mtu", l.MTU, "mac", l.MAC)
	for _, w := range l.Warnings {
		logger.Warn(w)
	}
	opts.Addresses, opts.Gateways, opts.SharedMAC = l.Prefixes, l.Gateways, true
	if l.Shared {
		opts.Ports = leasedPorts{lease}
		for _, p := range l.Prefixes { // what others have there is behind the same MAC
			opts.Neighbors = append(opts.Neighbors, netstack.Neighbor{IP: p.Addr(), MAC: mac})
		}
	}
	n.link, err = modeswitch.New(modeswitch.Options{
		Backend: modeswitch.Backend{
			Queues: modeswitch.Queues(lease.Rings()), MAC: mac, MTU: l.MTU,
			TXChecksum: true, GSOMax: l.GSOMax, RXJoined: true, RXTrusted: true,
		},
		Spin: s.Spin, Capture: n.capture,
	})
	if err != nil {
		return err
	}
	n.mover = mover.Start(mover.Options{Lease: lease, Link: n.link, Shared: l.Shared, Logger: logger})
	n.followMonitor(s.Socket, logger)
	return nil
}

// followMonitor says when the monitor is gone, which programs only notice by what
// does not work any more.
func (n *network) followMonitor(socket string, logger *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	n.heed = cancel
	go n.lease.Follow(ctx, func(there bool) {
		if there {
			logger.Warn("junctiond is there again", "socket", socket)
			return
		}
		logger.Warn("junctiond is gone, or has ended the lease: no packets flow once its network server is gone, too; ports wait for the next junctiond", "socket", socket)
	})
}

func leaseError(ctx context.Context, mode cli.Mode, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, client.ErrNoMonitor) {
		return fmt.Errorf("--mode %s: %w; start junctiond, or name its socket with --socket", mode, err)
	}
	return fmt.Errorf("--mode %s: %w", mode, err)
}

// goDirect has the monitor switch the instance to a queue of its own. The order is
// an operator's, so it takes the same rights; once the program runs, the process
// cannot give any.
func (n *network) goDirect(ctx context.Context, s *cli.Settings, logger *slog.Logger) error {
	o, err := client.DialOperator(ctx, s.Socket)
	if err != nil {
		return leaseError(ctx, s.Mode, err)
	}
	defer o.Close()
	r, err := o.Switch(ctx, wire.SwitchOrder{Target: wire.Target{ID: n.lease.Lease().ID}, Mode: protocol.Direct, Wait: s.Wait})
	if err != nil {
		return leaseError(ctx, s.Mode, err)
	}
	if err := refused(r); err != nil {
		return err
	}
	logger.Info("direct mode", "socket", s.Socket, "id", r.ID, "took_us", r.TotalUS)
	return nil
}

// refused tells why an instance is not in direct mode, and what to do.
func refused(r wire.SwitchResult) error {
	switch {
	case r.NoQueue:
		return fmt.Errorf("--mode direct: %s; or wait for one with --wait", r.Reason)
	case r.Reason != "":
		return fmt.Errorf("--mode direct: %s; --mode server goes without a queue", r.Reason)
	}
	return nil
}

// monitorAnswers tells whether something listens at a path.
func monitorAnswers(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == nil
}

// monitorExpected tells whether the environment names a monitor, or one that died
// has left its socket.
func monitorExpected(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || os.Getenv("JUNCTION_SOCKET") != ""
}

// leasedPorts asks the monitor for ports.
type leasedPorts struct{ lease *client.Instance }

// portTime is how long the monitor has to answer.
const portTime = 5 * time.Second

// Acquire implements netstack.Ports.
func (p leasedPorts) Acquire(r netstack.PortRequest) (uint64, uint16, error) {
	ctx, cancel := context.WithTimeout(context.Background(), portTime)
	defer cancel()
	proto, purpose := table.TCP, portmap.ForBind
	if r.UDP {
		proto = table.UDP
	}
	if r.Why != netstack.WhyBind {
		purpose = portmap.ForSend // EAGAIN: no port; EADDRNOTAVAIL: no such address
	}
	socket, port, err := p.lease.Bind(ctx, proto, r.Addr, r.Port, purpose, r.V6Only)
	return uint64(socket), port, err
}

// Release implements netstack.Ports.
func (p leasedPorts) Release(holder uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), portTime)
	defer cancel()
	return p.lease.Release(ctx, portmap.Socket(holder))
}
