package afxdp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Values of the kernel's ABI (linux/bpf.h).
const (
	xdpDrop            = 1
	xdpMDRxQueueIndex  = 16 // offset of rx_queue_index in struct xdp_md
	programName        = "junction_direct"
	singleBufferMaxMTU = 3498 // of a veth with 4 KiB pages
)

// Program is the XDP program of a NIC, and the map of its sockets by queue.
type Program struct {
	Sockets *ebpf.Map
	Prog    *ebpf.Program
	// Stamps: it puts stamps before frames.
	Stamps bool

	attached link.Link
	generic  bool
	frags    bool
	warning  string // why it is generic
}

// Loader loads a program for a NIC with so many queues, that with frags handles
// frames of several buffers.
type Loader func(queues int, frags bool) (*Program, error)

// Generic says whether the program runs outside the driver.
func (p *Program) Generic() bool { return p.generic }

// Frags says whether frames may have several buffers.
func (p *Program) Frags() bool { return p.frags }

// LinkFD is the descriptor that keeps the program attached.
func (p *Program) LinkFD() int { return p.attached.(interface{ FD() int }).FD() }

// PlainProgram is the Loader of "redirect to the socket of this queue, else drop".
func PlainProgram(queues int, frags bool) (*Program, error) {
	p := &Program{}
	var err error
	p.Sockets, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: programName, Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(queues),
	})
	if err != nil {
		return nil, nic.Denied(err, "make the XDP socket map", "CAP_BPF", "CAP_NET_ADMIN")
	}
	spec := &ebpf.ProgramSpec{Name: programName, Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, xdpMDRxQueueIndex, asm.Word),
		asm.LoadMapPtr(asm.R1, p.Sockets.FD()),
		asm.Mov.Imm(asm.R3, xdpDrop), // the result if the map has no socket there
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}}
	if frags {
		spec.Flags = unix.BPF_F_XDP_HAS_FRAGS
	}
	if p.Prog, err = ebpf.NewProgram(spec); err != nil {
		_ = p.Close()
		return nil, nic.Denied(err, "load the XDP program", "CAP_BPF", "CAP_NET_ADMIN")
	}
	return p, nil
}

// attach hangs the program on the NIC.
func (p *Program) attach(l *nic.Link, generic bool) error {
	p.generic = generic
	flags := link.XDPDriverMode
	if generic {
		flags = link.XDPGenericMode
	}
	var err error
	p.attached, err = link.AttachXDP(link.XDPOptions{Program: p.Prog, Interface: l.Attrs().Index, Flags: flags})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST):
		return l.InUse(xdpHolder(l))
	}
	return nic.Denied(err, "attach the XDP program to "+l.Name(), "CAP_BPF", "CAP_NET_ADMIN")
}

func (p *Program) set(queue, fd int) error {
	if err := p.Sockets.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("enter the socket of queue %d: %w", queue, err)
	}
	return nil
}

// Close gives the program up. It stays attached as long as something else keeps
// it so.
func (p *Program) Close() error {
	if p.attached != nil {
		_ = p.attached.Close()
	}
	if p.Prog != nil {
		_ = p.Prog.Close()
	}
	return p.Sockets.Close()
}

// xdpHolder returns a process that holds the bpf_link on the NIC; 0 if none
// can be found.
func xdpHolder(l *nic.Link) int {
	if id, ok := xdpLink(l); ok {
		return nic.HolderByFDInfo("link_id", strconv.Itoa(int(id)))
	}
	return 0
}

// xdpLink returns the bpf_link on the NIC. Links are of all network namespaces, each
// with numbers of its own for NICs: the program tells which of several it is.
func xdpLink(l *nic.Link) (id link.ID, ok bool) {
	if err := l.Refresh(); err != nil || l.Attrs().Xdp == nil {
		return 0, false
	}
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		info, err := links.Link.Info()
		if err == nil && info.XDP() != nil && int(info.XDP().Ifindex) == l.Attrs().Index && uint32(info.Program) == l.Attrs().Xdp.ProgId {
			return info.ID, true
		}
	}
	return 0, false
}

// attachBest attaches natively if the driver can, else generically.
func attachBest(l *nic.Link, queues int, load Loader) (*Program, error) {
	jumbo := l.Attrs().MTU > singleBufferMaxMTU
	var reasons []string
	for _, try := range []struct{ generic, frags bool }{{false, jumbo}, {true, true}, {true, false}} {
		if jumbo && !try.frags {
			break
		}
		p, err := load(queues, try.frags)
		if err == nil {
			p.frags = try.frags
			if err = p.attach(l, try.generic); err == nil {
				if try.generic {
					p.warning = "native XDP not available, using generic: " + strings.Join(reasons, "; ")
				}
				return p, nil
			}
			_ = p.Close()
		}
		if errors.Is(err, nic.ErrInUse) || errors.Is(err, nic.ErrPermission) {
			return nil, err
		}
		reasons = append(reasons, err.Error())
	}
	if jumbo {
		return nil, nic.MTUError(l.Name(), l.Attrs().MTU, singleBufferMaxMTU,
			"AF_XDP would need multi-buffer XDP ("+strings.Join(reasons, "; ")+"); lower the NIC's MTU or use the tap driver")
	}
	return nil, fmt.Errorf("%w: AF_XDP on %s: %s", nic.ErrUnsupported, l.Name(), strings.Join(reasons, "; "))
}
