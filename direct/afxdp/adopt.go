package afxdp

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
	"junction/direct/internal/outlet"
)

// Export describes the queues of a device to the process that is to use them, to
// be sent beside their files: FilesPerQueue for each of Queues, in order, then
// Outlet's.
type Export struct {
	NIC string `json:"nic"`
	// Index is the NIC's number in its network namespace.
	Index int    `json:"index"`
	MAC   string `json:"mac"`
	MTU   int    `json:"mtu_bytes"`
	// Generic and Frags as in nic.Mode.
	Generic bool `json:"generic,omitempty"`
	Frags   bool `json:"frags,omitempty"`
	// Partial: frames may come from this machine's kernel, which leaves TCP and
	// UDP checksums partial on a virtual NIC.
	Partial bool `json:"partial,omitempty"`
	// NoChecksum: checksums of frames sent must be complete.
	NoChecksum bool `json:"no_checksum,omitempty"`
	// Stamps: received frames may bear a Stamp.
	Stamps bool `json:"stamps,omitempty"`
	// Outlet: there is one, and a further file for each queue, behind those of
	// Queues.
	Outlet   nic.Outlet `json:"outlet,omitempty"`
	Queues   []Geometry `json:"queues"`
	Warnings []string   `json:"warnings,omitempty"`
}

// AdoptOptions are the parameters of Adopt.
type AdoptOptions struct {
	// Watch: end all waits with nic.ErrNoNIC when the NIC disappears. It takes a
	// netlink socket, in the NIC's network namespace.
	Watch bool
}

// Adopt makes this process the user of queues that another one, or an earlier
// one, has made and bound; the user before must have ended. It takes files over,
// also when it fails. It needs no privilege and, without Watch, no system call
// but mmap, fstat, fcntl, getsockopt, close, membarrier and those that make an
// eventfd and an epoll set.
//
// What waits in the receive rings is received, what its user before published
// is sent, and chunks that it had in hand are found again. What it had received
// and not released, a batch at most, is received once more: that user may have
// passed it on. Closing the device gives the files up, not
// the queues. Errors: ErrGeometry, or the system's.
func Adopt(e Export, files []int, o AdoptOptions) (_ *Device, err error) {
	queues, err := divide(&e, files)
	if err != nil {
		return nil, err
	}
	d := &Device{name: e.NIC, mtu: e.MTU, partial: e.Partial, mode: e.mode()}
	d.files = nic.FileDevice{Name: e.NIC, MTU: e.MTU, Offloads: nic.Offloads{TXChecksum: true, GSOMax: outlet.MaxSegments}}
	rest := queues
	defer func() {
		if err != nil {
			for _, f := range rest {
				f.close()
			}
			_ = d.Close()
		}
	}()
	if d.mac, err = net.ParseMAC(e.MAC); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGeometry, err)
	}
	if o.Watch {
		if d.watch, err = nic.NewWatch(e.Index, e.NIC); err != nil {
			return nil, err
		}
	}
	rules := frameRules{maxFrame: maxFrameFor(e.MTU), partial: e.Partial, frags: e.Frags, stamps: e.Stamps, noChecksum: e.NoChecksum, all: e.Outlet == nic.OutletAll}
	for i, f := range queues {
		rest = queues[i+1:]
		q, err := useQueue(d, e.Queues[i], f, rules)
		if err != nil {
			return nil, fmt.Errorf("use queue %d of %s: %w", i, e.NIC, err)
		}
		d.own, d.queues = append(d.own, q), append(d.queues, q)
	}
	return d, nil
}

// mode is what a device with these queues really uses.
func (e *Export) mode() nic.Mode {
	m := nic.Mode{
		NIC: e.NIC, Driver: "afxdp", Attach: "native", Copy: "copy", NeedWakeup: true,
		Frags: e.Frags, Queues: len(e.Queues), Outlet: e.Outlet, Warnings: e.Warnings,
	}
	if e.Generic {
		m.Attach = "generic"
	}
	if e.Queues[0].ZeroCopy {
		m.Copy = "zero-copy"
	}
	return m
}

// Limits of what an Export may say.
const (
	maxQueues = 256
	leastMTU  = 68
)

// queueFiles are the files of one queue.
type queueFiles struct {
	socket, umem int
	outlet       int // -1: there is none
}

func (f *queueFiles) close() {
	closeAll([]int{f.socket, f.umem})
	if f.outlet >= 0 {
		_ = unix.Close(f.outlet)
	}
}

// divide checks that files are those that e tells of; if not, it closes them.
func divide(e *Export, files []int) (queues []queueFiles, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	n, each := len(e.Queues), FilesPerQueue
	switch e.Outlet {
	case nic.NoOutlet:
	case nic.OutletSegments, nic.OutletAll:
		each++
	default:
		return nil, fmt.Errorf("%w: outlet %q", ErrGeometry, e.Outlet)
	}
	if n == 0 || n > maxQueues || len(files) != n*each {
		return nil, fmt.Errorf("%w: %d files for %d queues", ErrGeometry, len(files), n)
	}
	if e.MTU < leastMTU || e.MTU > nic.MaxFrame {
		return nil, fmt.Errorf("%w: MTU %d", ErrGeometry, e.MTU)
	}
	for i := range e.Queues {
		f := queueFiles{files[i*FilesPerQueue], files[i*FilesPerQueue+1], -1}
		if err := checkFiles(f.socket, f.umem, &e.Queues[i]); err != nil {
			return nil, err
		}
		if e.Outlet != nic.NoOutlet {
			f.outlet = files[n*FilesPerQueue+i]
			if err := outlet.Check(f.outlet); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrGeometry, err)
			}
		}
		queues = append(queues, f)
	}
	return queues, nil
}

// duplicate returns descriptors of the same files; -1 for what has none.
func duplicate(files []int) (dups []int) {
	for _, f := range files {
		fd, err := unix.FcntlInt(uintptr(f), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			fd = -1 // who checks it says so
		}
		dups = append(dups, fd)
	}
	return dups
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
