package afxdp

import (
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// KeepFiles is how many files Keep returns.
const KeepFiles = 2

// Keep returns what a process must hold, beside the sockets, that the NIC goes on
// as it is when its maker dies: what attaches the program, and what makes the NIC
// receive multicast. The files stay the NIC's. Nobody can steer with them.
func (n *NIC) Keep() [KeepFiles]int { return [KeepFiles]int{n.program.LinkFD(), n.members} }

// Retake makes a NIC of what another process, which has died, made of it: e, keep
// and files are what that one's Export and Keep returned. It takes l, which is
// leased, and the descriptors over, also when it fails. program has the maps and
// the program that are attached, see AttachedProgram.
// before is Options.Before.
func Retake(l *nic.Link, e Export, keep [KeepFiles]int, files []int, program *Program, before *nic.Channels) (_ *NIC, err error) {
	n := &NIC{link: l, members: keep[1], mtu: e.MTU, program: program}
	defer func() {
		if err != nil {
			_ = n.Close()
		}
	}()
	program.attached, err = link.NewFromFD(keep[0])
	if err != nil {
		closeAll(files)
		return nil, fmt.Errorf("take %s over: %w", e.NIC, err)
	}
	if e.Outlet != nic.NoOutlet { // a network server has none
		closeAll(files)
		return nil, fmt.Errorf("%w: outlet %q of %s", ErrGeometry, e.Outlet, e.NIC)
	}
	program.generic, program.frags = e.Generic, e.Frags
	queues, err := divide(&e, files)
	if err != nil {
		return nil, err
	}
	for i, f := range queues {
		n.sockets = append(n.sockets, &Socket{
			Geometry: e.Queues[i],
			socket:   os.NewFile(uintptr(f.socket), "AF_XDP"), umem: os.NewFile(uintptr(f.umem), "umem"),
		})
	}
	if n.mac, err = net.ParseMAC(e.MAC); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGeometry, err)
	}
	if l.Attrs().Index != e.Index {
		return nil, fmt.Errorf("%w: %s is another NIC than it was", nic.ErrNoNIC, e.NIC)
	}
	if n.channels, err = newChannels(l, before); err != nil {
		return nil, err
	}
	return n, nil
}

// AttachedProgram returns the number of the program that the link fd attaches to
// the NIC index.
func AttachedProgram(fd, index int) (uint32, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	l, err := link.NewFromFD(dup)
	if err != nil {
		return 0, fmt.Errorf("look at what is attached: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, fmt.Errorf("look at what is attached: %w", err)
	}
	if info.XDP() == nil || int(info.XDP().Ifindex) != index {
		return 0, fmt.Errorf("%w: it is not attached to this NIC", nic.ErrNoNIC)
	}
	return uint32(info.Program), nil
}

// Replace puts the NIC's program into the place of the one that is attached.
func (n *NIC) Replace() error { return n.program.attached.Update(n.program.Prog) }
