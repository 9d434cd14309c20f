package afxdp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Device is a NIC with an AF_XDP socket on each of its queues; it implements
// nic.Device.
type Device struct {
	link     *nic.Link
	watch    *nic.Watch
	channels *channels
	program  *program
	members  int // packet socket that says what the NIC receives, or -1
	queues   []nic.Queue
	own      []*Queue
	mac      net.HardwareAddr
	mtu      int
	closing  sync.Once
}

// Open drives the NIC of l, which it takes over: Close, or an error, closes l.
// It must run in the NIC's network namespace.
func Open(ctx context.Context, l *nic.Link, o nic.Options) (*Device, error) {
	d := &Device{link: l, members: -1, mac: o.MAC}
	if err := d.open(ctx, o); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Device) open(ctx context.Context, o nic.Options) (err error) {
	if d.mtu, err = d.link.ChooseMTU(o.MTU); err != nil {
		return err
	}
	if d.watch, err = nic.NewWatch(d.link.Attrs().Index, d.link.Name()); err != nil {
		return err
	}
	if d.channels, err = newChannels(d.link); err != nil {
		return err
	}
	n, err := d.attach(ctx, o.Queues)
	if err != nil {
		return err
	}
	if d.program.warning != "" {
		d.link.Warn("%s", d.program.warning)
	}
	for id := range n {
		q, err := openQueue(ctx, d, id)
		if err != nil {
			return err
		}
		d.own, d.queues = append(d.own, q), append(d.queues, q)
		if err := d.program.set(id, q.fd); err != nil {
			return err
		}
	}
	if err := d.address(); err != nil {
		return err
	}
	return d.link.Up()
}

// attach makes the NIC receive on asked queues (0: all) if it can, attaches
// the XDP program and returns the number of queues that receive.
func (d *Device) attach(ctx context.Context, asked int) (n int, err error) {
	all := d.channels.total()
	switch {
	case asked > all:
		return 0, fmt.Errorf("%w: %d queues on %s, which has %d; see: ethtool -L %s",
			nic.ErrUnsupported, asked, d.link.Name(), all, d.link.Name())
	case asked == 0 || asked == all:
		return all, d.attachRetry(ctx, all)
	}
	err = d.channels.reduce(asked)
	if err == nil {
		if err = d.attachRetry(ctx, asked); err == nil && !d.program.generic {
			return asked, nil
		}
		d.detach()
		d.channels.restore()
	}
	// Frames would be lost on the other queues.
	d.link.Warn("%d queues instead of %d: the driver of %s cannot have fewer", all, asked, d.link.Name())
	return all, d.attachRetry(ctx, all)
}

func (d *Device) attachRetry(ctx context.Context, queues int) error {
	return nic.Retry(ctx, func() (err error) {
		d.program, err = attachBest(d.link, queues)
		return err
	})
}

func (d *Device) detach() {
	if d.program != nil {
		d.program.close()
		d.program = nil
	}
}

// address makes the NIC receive what is meant for the instance: all multicast,
// for a driver passes on only groups that the host's kernel has joined, and
// IPv6 finds no neighbours without; and every address, if d.mac is not the
// NIC's own. A packet socket holds both settings, so that they end with the
// process.
func (d *Device) address() (err error) {
	own := d.link.Attrs().HardwareAddr
	if d.mac == nil {
		d.mac = own
	}
	d.members, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nic.Denied(err, "open a packet socket", "CAP_NET_RAW")
	}
	if err := d.join(unix.PACKET_MR_ALLMULTI); err != nil || bytes.Equal(d.mac, own) {
		return err
	}
	return d.join(unix.PACKET_MR_PROMISC)
}

func (d *Device) join(membership uint16) error {
	err := unix.SetsockoptPacketMreq(d.members, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(d.link.Attrs().Index), Type: membership})
	return nic.Denied(err, "change what "+d.link.Name()+" receives", "CAP_NET_ADMIN")
}

// Queues implements nic.Device.
func (d *Device) Queues() []nic.Queue { return d.queues }

// MAC implements nic.Device.
func (d *Device) MAC() net.HardwareAddr { return d.mac }

// MTU implements nic.Device.
func (d *Device) MTU() int { return d.mtu }

// Offloads implements nic.Device.
func (d *Device) Offloads() nic.Offloads {
	o := d.own[0].t.offloads
	o.RXTrusted = d.own[0].r.partial
	return o
}

// Mode implements nic.Device.
func (d *Device) Mode() nic.Mode {
	m := nic.Mode{
		NIC: d.link.Name(), Driver: "afxdp", Attach: "native", Copy: "copy", NeedWakeup: true,
		Frags: d.program.frags, Queues: len(d.queues), Warnings: d.link.Warnings(),
	}
	if d.program.generic {
		m.Attach = "generic"
	}
	if d.own[0].zeroCopy {
		m.Copy = "zero-copy"
	}
	return m
}

// Stats implements nic.Device.
func (d *Device) Stats() (sum nic.QueueStats) {
	for _, q := range d.own {
		sum.Add(q.Stats())
	}
	return sum
}

// Close implements nic.Device.
func (d *Device) Close() error {
	d.closing.Do(d.close)
	return nil
}

func (d *Device) close() {
	for _, q := range d.own {
		q.close()
	}
	if d.program != nil {
		d.program.close()
	}
	if d.members >= 0 {
		_ = unix.Close(d.members)
	}
	if d.channels != nil {
		d.channels.close()
	}
	if d.watch != nil {
		d.watch.Close()
	}
	d.link.Close()
}
