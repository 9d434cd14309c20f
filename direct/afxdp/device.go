package afxdp

import (
	"context"
	"net"
	"sync"

	"junction/direct/internal/nic"
)

// Device is a NIC with an AF_XDP socket on each of its queues; it implements
// nic.Device.
type Device struct {
	nic     *NIC // nil for queues that another process made
	name    string
	watch   *nic.Watch // nil for who may not watch
	queues  []nic.Queue
	files   nic.FileDevice // what the outlets of all queues have in common
	own     []*Queue
	mac     net.HardwareAddr
	mtu     int
	partial bool
	mode    nic.Mode
	closing sync.Once
}

// Open drives the NIC of l, which it takes over: Close, or an error, closes l.
// It must run in the NIC's network namespace.
func Open(ctx context.Context, l *nic.Link, o nic.Options) (*Device, error) {
	n, err := Take(ctx, l, o, PlainProgram)
	if err != nil {
		return nil, err
	}
	if !o.NoOutlet {
		n.openOutlet(ctx)
	}
	e, files := n.Export()
	d, err := Adopt(e, duplicate(files), AdoptOptions{Watch: true})
	if err != nil {
		_ = n.Close()
		return nil, err
	}
	d.nic = n
	n.dropSockets()
	return d, nil
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
	if d.own[0].outlet != nil {
		o = d.files.Offloads
	}
	o.RXTrusted = d.partial
	return o
}

// Mode implements nic.Device.
func (d *Device) Mode() nic.Mode {
	m := d.mode
	if d.nic != nil {
		m.Warnings = d.nic.link.Warnings()
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
	if d.nic != nil {
		_ = d.nic.Close()
	}
	if d.watch != nil {
		d.watch.Close()
	}
}
