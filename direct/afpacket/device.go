package afpacket

import (
	"context"
	"net"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Device is a NIC with packet sockets; it implements nic.Device.
type Device struct {
	link    *nic.Link
	files   nic.FileDevice
	own     []*nic.FileQueue
	fds     []int
	mac     net.HardwareAddr
	quiet   link.Link // drops what the host's stack would get
	closing sync.Once

	mu sync.Mutex
	// +checklocks:mu
	full uint64 // frames that found no room in a socket
	// +checklocks:mu
	closed bool
}

// Open drives a NIC, which it takes over: Close, or an error, closes l. It must
// run in the NIC's network namespace.
func Open(_ context.Context, l *nic.Link, o nic.Options) (*Device, error) {
	d := &Device{link: l, mac: o.MAC, files: nic.FileDevice{
		Name: o.NIC, Offloads: nic.Offloads{TXChecksum: true, GSOMax: 65536, RXJoined: true, RXTrusted: true},
	}}
	if err := d.open(o); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Device) open(o nic.Options) (err error) {
	own := d.link.Attrs().HardwareAddr
	if d.mac == nil {
		d.mac = own
	}
	if d.files.MTU, err = d.link.ChooseMTU(o.MTU); err != nil {
		return err
	}
	if err := d.link.Up(); err != nil {
		return err
	}
	if d.quiet, err = dropAll(d.link.Attrs().Index); err != nil {
		d.link.Warn("the host's own stack sees the NIC's frames too: %v", err)
	}
	if d.files.Watch, err = nic.NewWatch(d.link.Attrs().Index, o.NIC); err != nil {
		return err
	}
	all := d.mac.String() != own.String()
	for i := range max(1, o.Queues) {
		fd, err := openSocket(d.link.Attrs().Index, all)
		if err == nil && o.Queues > 1 {
			err = d.fanOut(fd, i)
		}
		if err != nil {
			return nic.Denied(err, "open a packet socket on "+o.NIC, "CAP_NET_RAW")
		}
		q, err := d.files.AddQueue(fd)
		if err != nil {
			return err
		}
		d.own, d.fds = append(d.own, q), append(d.fds, fd)
	}
	return d.own[0].Watches()
}

// fanOut has the kernel share flows out between the sockets, of which fd is
// number i.
func (d *Device) fanOut(fd, i int) error {
	const unique = unix.PACKET_FANOUT_FLAG_UNIQUEID << 16
	arg := unix.PACKET_FANOUT_HASH << 16
	if i == 0 {
		return setOption(fd, unix.PACKET_FANOUT, arg|unique)
	}
	group, err := unix.GetsockoptInt(d.fds[0], unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return err
	}
	return setOption(fd, unix.PACKET_FANOUT, arg|group&0xffff)
}

// dropAll drops all frames that arrive, after packet sockets have seen them.
// It needs Linux 6.6.
func dropAll(index int) (link.Link, error) {
	const drop = 2 // TCX_DROP
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "junction_quiet", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, drop), asm.Return()},
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: ebpf.AttachTCXIngress})
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
	return nic.Mode{
		NIC: d.files.Name, Driver: "afpacket", Attach: "socket", Copy: "copy",
		Queues: len(d.files.Queues), Warnings: d.link.Warnings(),
	}
}

// Stats implements nic.Device.
func (d *Device) Stats() nic.QueueStats {
	var all nic.QueueStats
	for _, q := range d.own {
		all.Add(q.Stats())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count()
	all.Add(nic.QueueStats{Drops: map[string]uint64{"rx_ring_full": d.full}})
	return all
}

// count adds up what the sockets dropped since the last time.
//
// +checklocks:d.mu
func (d *Device) count() {
	if d.closed {
		return
	}
	for _, fd := range d.fds {
		if st, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			d.full += uint64(st.Drops)
		}
	}
}

// Close implements nic.Device.
func (d *Device) Close() error {
	d.closing.Do(func() {
		d.mu.Lock()
		d.count()
		d.closed = true
		d.mu.Unlock()
		for _, q := range d.own {
			q.Close()
		}
		if d.quiet != nil {
			_ = d.quiet.Close()
		}
		if d.files.Watch != nil {
			d.files.Watch.Close()
		}
		d.link.Close()
	})
	return nil
}
