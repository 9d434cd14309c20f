package tap

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
	"junction/direct/internal/tun"
)

// Device is an open TAP or macvtap; it implements nic.Device.
type Device struct {
	name    string // of the NIC that was asked for
	link    *nic.Link
	macvtap netlink.Link // on top of link, or nil
	private *namespace   // which macvtap is in
	files   nic.FileDevice
	own     []*nic.FileQueue
	mac     net.HardwareAddr
	closing sync.Once

	mu    sync.Mutex
	first netlink.LinkStatistics // at Open
	// +checklocks:mu
	last netlink.LinkStatistics // as last read
	// +checklocks:mu
	closed bool
}

// Open drives an existing NIC, which it takes over: Close, or an error, closes
// l. It must run in the NIC's network namespace.
func Open(ctx context.Context, l *nic.Link, o nic.Options) (*Device, error) {
	d := newDevice(o)
	d.link = l
	if err := d.open(ctx, o); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Create makes the TAP o.NIC, which does not exist, in the calling thread's
// network namespace; it ends with the device. Its host side is set up, without
// an address.
func Create(ctx context.Context, o nic.Options) (*Device, error) {
	d := newDevice(o)
	fds, err := tun.Make(o.NIC, max(1, o.Queues))
	if err == nil {
		d.link, err = nic.Find(o.NIC, o.Logger)
	}
	if err != nil {
		tun.CloseAll(fds)
		return nil, err
	}
	if err := d.setUpCreated(ctx, fds, o.MTU); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// queueLength is how many frames the kernel keeps for each queue of a device
// that we make; its default of 500 is 2.5 ms at 200,000 a second.
const queueLength = 2048

func newDevice(o nic.Options) *Device {
	return &Device{
		name: o.NIC, mac: o.MAC,
		files: nic.FileDevice{Name: o.NIC, Offloads: nic.Offloads{TXChecksum: true, GSOMax: 65536, RXJoined: true, RXTrusted: true}},
	}
}

func (d *Device) setUpCreated(ctx context.Context, fds []int, mtu int) error {
	if err := d.adopt(fds); err != nil {
		return err
	}
	if err := d.link.Acquire(ctx); err != nil {
		return err
	}
	if err := d.link.Netlink.LinkSetTxQLen(d.link, queueLength); err != nil {
		return fmt.Errorf("set the queue length of %s: %w", d.name, err)
	}
	if mtu != 0 && mtu != d.link.Attrs().MTU {
		if err := d.link.Netlink.LinkSetMTU(d.link, mtu); err != nil {
			return nic.MTUError(d.name, mtu, 65521, "a TAP takes 68 to 65521 bytes ("+err.Error()+")")
		}
		d.link.Attrs().MTU = mtu
	}
	return d.finish(mtu, nil)
}

func (d *Device) open(ctx context.Context, o nic.Options) error {
	if o.MTU != 0 { // before anything is made
		if _, err := d.link.ChooseMTU(o.MTU); err != nil {
			return err
		}
	}
	queues := max(1, o.Queues)
	var fds []int
	err := nic.Retry(ctx, func() (err error) {
		if err := d.link.Refresh(); err != nil { // its last holder may have gone
			return err
		}
		if d.link.IsTAP() {
			fds, err = d.attachTAP(queues)
		} else {
			fds, err = d.addMacvtap(queues)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := d.adopt(fds); err != nil {
		return err
	}
	own := d.link.Attrs().HardwareAddr
	if d.link.IsTAP() {
		own = nil // it is the host's
	}
	return d.finish(o.MTU, own)
}

// adopt makes queues of fds, and takes them over.
func (d *Device) adopt(fds []int) error {
	d.files.CountsFull = d.macvtap != nil
	for i, fd := range fds {
		err := tun.Configure(fd)
		var q *nic.FileQueue
		if err == nil {
			q, err = d.files.AddQueue(fd)
		} else {
			_ = unix.Close(fd)
		}
		if err != nil {
			tun.CloseAll(fds[i+1:])
			return err
		}
		d.own = append(d.own, q)
	}
	return nil
}

// finish sets the device up with MTU mtu (0: the NIC's own) and, if none was
// asked for, the MAC own or a random one.
func (d *Device) finish(mtu int, own net.HardwareAddr) (err error) {
	if d.files.MTU, err = d.link.ChooseMTU(mtu); err != nil {
		return err
	}
	switch {
	case d.mac != nil:
	case own != nil:
		d.mac = own
	default:
		d.mac = randomMAC()
	}
	if err := d.link.Up(); err != nil {
		return err
	}
	if d.files.Watch, err = nic.NewWatch(d.link.Attrs().Index, d.name); err != nil {
		return err
	}
	if err := d.own[0].Watches(); err != nil {
		return err
	}
	d.first = d.readStatistics()
	d.last = d.first
	return nil
}

// Queues implements nic.Device.
func (d *Device) Queues() []nic.Queue { return d.files.Queues }

// MAC implements nic.Device.
func (d *Device) MAC() net.HardwareAddr { return d.mac }

// MTU implements nic.Device.
func (d *Device) MTU() int { return d.files.MTU }

// Offloads implements nic.Device.
func (d *Device) Offloads() nic.Offloads { return d.files.Offloads }

// Mode implements nic.Device.
func (d *Device) Mode() nic.Mode {
	m := nic.Mode{NIC: d.name, Driver: "tap", Attach: "tap", Copy: "copy", Queues: len(d.files.Queues), Warnings: d.link.Warnings()}
	if d.macvtap != nil {
		m.Attach = "macvtap"
	}
	return m
}

// Close implements nic.Device.
func (d *Device) Close() error {
	d.closing.Do(d.close)
	return nil
}

func (d *Device) close() {
	d.mu.Lock()
	if d.own != nil {
		d.last = d.readStatistics()
	}
	d.closed = true
	d.mu.Unlock()
	for _, q := range d.own {
		q.Close()
	}
	d.removeMacvtap()
	if d.files.Watch != nil {
		d.files.Watch.Close()
	}
	d.link.Close()
}

// Stats implements nic.Device.
func (d *Device) Stats() nic.QueueStats {
	var sum nic.QueueStats
	var counted uint64
	for _, q := range d.own {
		sum.Add(q.Stats())
		counted += q.Counted()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.last = d.readStatistics()
	}
	full, device := d.last.TxDropped-d.first.TxDropped, d.last.RxDropped-d.first.RxDropped
	if d.macvtap != nil { // which is on the other side of its queues
		full, device = d.last.RxDropped-d.first.RxDropped, d.last.TxDropped-d.first.TxDropped
	}
	device -= min(device, counted)
	sum.Add(nic.QueueStats{Drops: map[string]uint64{"rx_ring_full": full, "tx_device": device}})
	sum.TxPackets -= min(sum.TxPackets, device)
	return sum
}

// readStatistics returns the counters of the TAP or macvtap, or what was last
// known of them when it has gone.
func (d *Device) readStatistics() netlink.LinkStatistics {
	handle, index := d.link.Netlink, d.link.Attrs().Index
	if d.macvtap != nil {
		handle, index = d.private.link, d.macvtap.Attrs().Index
	}
	l, err := handle.LinkByIndex(index)
	if err != nil || l.Attrs().Statistics == nil {
		return d.last
	}
	return *l.Attrs().Statistics
}
