package afxdp

import (
	"bytes"
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
	"junction/direct/internal/outlet"
)

// NIC is a NIC whose every frame goes to an XDP program, with a socket on each
// of its queues, that nobody uses yet. Its methods are for one goroutine at a
// time.
type NIC struct {
	link     *nic.Link
	channels *channels
	program  *Program
	members  int // packet socket that says what the NIC receives, or -1
	sockets  []*Socket
	outlet   *outlet.Outlet // of a NIC that its taker uses itself; else nil
	mac      net.HardwareAddr
	mtu      int
}

// Take makes a NIC ready. It takes l over: Close, or an error, closes it. It must
// run in the NIC's network namespace.
func Take(ctx context.Context, l *nic.Link, o nic.Options, load Loader) (*NIC, error) {
	n := &NIC{link: l, members: -1, mac: o.MAC}
	if err := n.take(ctx, o, load); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

func (n *NIC) take(ctx context.Context, o nic.Options, load Loader) (err error) {
	if n.mtu, err = n.link.ChooseMTU(o.MTU); err != nil {
		return err
	}
	if n.channels, err = newChannels(n.link, o.Before); err != nil {
		return err
	}
	n.channels.restore() // what the dead one has left
	queues, err := n.attach(ctx, o.Queues, load)
	if err != nil {
		return err
	}
	if n.program.warning != "" {
		n.link.Warn("%s", n.program.warning)
	}
	for id := range queues {
		s, err := NewSocket(ctx, Target{Link: n.link, Queue: id, Frags: n.program.frags})
		if err != nil {
			return err
		}
		n.sockets = append(n.sockets, s)
		if err := n.program.set(id, int(s.socket.Fd())); err != nil {
			return err
		}
	}
	if err := n.address(); err != nil {
		return err
	}
	return n.link.Up()
}

// attach makes the NIC receive on asked queues (0: all) if it can, attaches
// the XDP program and returns the number of queues that receive.
func (n *NIC) attach(ctx context.Context, asked int, load Loader) (queues int, err error) {
	all := n.channels.total()
	switch {
	case asked > all:
		return 0, fmt.Errorf("%w: %d queues on %s, which has %d; see: ethtool -L %s",
			nic.ErrUnsupported, asked, n.link.Name(), all, n.link.Name())
	case asked == 0 || asked == all:
		return all, n.attachRetry(ctx, all, load)
	}
	err = n.channels.reduce(asked)
	if err == nil {
		if err = n.attachRetry(ctx, asked, load); err == nil && !n.program.generic {
			return asked, nil
		}
		n.detach()
		n.channels.restore()
	}
	// Frames would be lost on the other queues.
	n.link.Warn("%d queues instead of %d: the driver of %s cannot have fewer", all, asked, n.link.Name())
	return all, n.attachRetry(ctx, all, load)
}

func (n *NIC) attachRetry(ctx context.Context, queues int, load Loader) error {
	return nic.Retry(ctx, func() (err error) {
		n.program, err = attachBest(n.link, queues, load)
		return err
	})
}

func (n *NIC) detach() {
	if n.program != nil {
		_ = n.program.Close()
		n.program = nil
	}
}

// address makes the NIC receive what is meant for the instance: all multicast,
// for a driver passes on only groups that the host's kernel has joined, and
// IPv6 finds no neighbours without; and every address, if n.mac is not the
// NIC's own. A packet socket holds both settings, so that they end with the
// processes that have it.
func (n *NIC) address() (err error) {
	own := n.link.Attrs().HardwareAddr
	if n.mac == nil {
		n.mac = own
	}
	n.members, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nic.Denied(err, "open a packet socket", "CAP_NET_RAW")
	}
	if err := n.join(unix.PACKET_MR_ALLMULTI); err != nil || bytes.Equal(n.mac, own) {
		return err
	}
	return n.join(unix.PACKET_MR_PROMISC)
}

func (n *NIC) join(membership uint16) error {
	err := unix.SetsockoptPacketMreq(n.members, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(n.link.Attrs().Index), Type: membership})
	return nic.Denied(err, "change what "+n.link.Name()+" receives", "CAP_NET_ADMIN")
}

// Link returns the NIC's link, which stays the NIC's.
func (n *NIC) Link() *nic.Link { return n.link }

// Program returns the XDP program, which stays the NIC's.
func (n *NIC) Program() *Program { return n.program }

// MAC returns the address that frames sent should have as their source.
func (n *NIC) MAC() net.HardwareAddr { return n.mac }

// MTU returns the longest IP packet in bytes that fits into a frame.
func (n *NIC) MTU() int { return n.mtu }

// Export describes the queues for another process, or this one, to Adopt, with
// their files, which stay the NIC's.
func (n *NIC) Export() (e Export, files []int) {
	e = Export{
		NIC: n.link.Name(), Index: n.link.Attrs().Index, MAC: n.mac.String(), MTU: n.mtu,
		Generic: n.program.generic, Frags: n.program.frags, Stamps: n.program.Stamps,
		Partial: n.link.Virtual(), Warnings: n.link.Warnings(),
	}
	for _, s := range n.sockets {
		e.Queues = append(e.Queues, s.Geometry)
		pair := s.Files()
		files = append(files, pair[:]...)
	}
	if n.outlet != nil {
		e.Outlet = nic.OutletSegments
		files = append(files, n.outlet.Files()...)
	}
	return e, files
}

// Renew makes new sockets in the place of those whose user has ended and left them
// in a state that nobody can go on with. After an error the NIC can only be closed.
func (n *NIC) Renew(ctx context.Context) error {
	for i, old := range n.sockets {
		_ = old.Close() // whoever else has it keeps the queue: then the next call says so
		s, err := NewSocket(ctx, Target{Link: n.link, Queue: old.Queue, Frags: n.program.frags})
		if err != nil {
			return err
		}
		n.sockets[i] = s
		if err := n.program.set(s.Queue, int(s.socket.Fd())); err != nil {
			return err
		}
	}
	return nil
}

// Before returns how many queues the NIC had at first, for Options.Before of who
// may continue it; nil if the driver does not tell.
func (n *NIC) Before() *nic.Channels {
	if n.channels == nil {
		return nil
	}
	return n.channels.counts()
}

// dropSockets gives the sockets' files up.
func (n *NIC) dropSockets() {
	for _, s := range n.sockets {
		_ = s.Close()
	}
	n.sockets = nil
	if n.outlet != nil {
		n.outlet.Release()
		n.outlet = nil
	}
}

// Close gives the NIC back, but for what users of its queues still hold.
func (n *NIC) Close() error {
	n.dropSockets()
	n.detach()
	if n.members >= 0 {
		_ = unix.Close(n.members)
		n.members = -1
	}
	if n.channels != nil {
		n.channels.close()
		n.channels = nil
	}
	if n.link != nil {
		n.link.Close()
	}
	return nil
}
