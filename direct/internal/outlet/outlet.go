// Package outlet makes TAPs by which frames leave another device: what is written
// to one passes a program that redirects it there. So a process without privileges
// sends TCP packets of up to 64 KiB with partial checksums, in one system call, for
// the kernel or the NIC to cut and to sum, where the device's own queue, an AF_XDP
// socket in copy mode, can do neither.
//
// Unlike a packet socket, a descriptor of a TAP addresses no other device.
package outlet

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
	"junction/direct/internal/tun"
)

// MaxSegments is the largest TCP packet, in bytes without its Ethernet header,
// that an outlet takes to be cut.
const MaxSegments = 65536

// sendBuffer is how many bytes, as the kernel counts them, may be on their way in
// a queue: some more than a device's ring holds, so that its own limit comes first.
const sendBuffer = 16 << 20

// Outlet is a TAP. Nothing comes out of it; it ends when all who hold one of its
// files have closed it, unless it is to stay (Persist), or with Close.
type Outlet struct {
	Index int
	name  string
	files []int
}

// New makes an outlet of so many queues, whose frames program decides on, in the
// network namespace of the calling thread, l's. Queue i's frames leave by the NIC's
// transmit queue i, if it has so many.
func New(l *nic.Link, name string, queues int, program *ebpf.Program) (_ *Outlet, err error) {
	o := &Outlet{name: name}
	defer func() {
		if err != nil {
			o.closeFiles()
		}
	}()
	if o.files, err = tun.Make(name, queues); err != nil {
		return nil, err
	}
	for _, fd := range o.files {
		if err := tun.Configure(fd); err != nil {
			return nil, err
		}
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETSNDBUF, sendBuffer); err != nil {
			return nil, fmt.Errorf("set the send buffer of %s: %w", name, err)
		}
	}
	if o.Index, err = find(l, name); err != nil {
		return nil, err
	}
	if err := l.Quiet(name); err != nil {
		return nil, err
	}
	if err := Guard(l, o.Index, program, false); err != nil {
		return nil, err
	}
	if err := l.Netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: o.Index}}); err != nil {
		return nil, nic.Denied(err, "set "+name+" up", "CAP_NET_ADMIN")
	}
	return o, nil
}

// Files returns the outlet's files, one for each queue. They stay the Outlet's.
func (o *Outlet) Files() []int { return o.files }

// Persist has the outlet stay, whoever closes its files, until Close or Delete.
func (o *Outlet) Persist() error {
	for _, fd := range o.files {
		if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
			return fmt.Errorf("have %s stay: %w", o.name, err)
		}
	}
	return nil
}

// Release gives the files up: the outlet ends with the last one who has them, unless
// it is to stay.
func (o *Outlet) Release() { o.closeFiles() }

// Close ends the outlet, whoever has its files.
func (o *Outlet) Close(l *nic.Link) error {
	o.closeFiles()
	return Delete(l, o.Index)
}

func (o *Outlet) closeFiles() {
	tun.CloseAll(o.files)
	o.files = nil
}

// Check tells whether a descriptor can be an outlet's: the character device of
// TUN/TAP (Documentation/admin-guide/devices.txt: misc, minor 200) that does not
// block.
func Check(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at descriptor %d: %w", fd, err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("look at descriptor %d: %w", fd, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(10, 200) || flags&unix.O_NONBLOCK == 0 {
		return fmt.Errorf("descriptor %d is no TAP that does not block", fd)
	}
	return nil
}

// Find returns the number of an outlet that another process has made; 0 if there
// is none.
func Find(l *nic.Link, name string) (int, error) {
	index, err := find(l, name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return 0, nil
	}
	return index, err
}

func find(l *nic.Link, name string) (int, error) {
	d, err := l.Netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("look up %s: %w", name, err)
	}
	return d.Attrs().Index, nil
}

// Delete deletes an outlet, if it is still there.
func Delete(l *nic.Link, index int) error {
	err := l.Netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %d: %w", index, err)
	}
	return nil
}

// Guard hangs a program on what a device receives, with replace in another's place.
// It hangs on the device itself, not on a link, so that it stays when the process
// dies and goes with the device.
func Guard(l *nic.Link, index int, program *ebpf.Program, replace bool) error {
	set := l.Netlink.FilterReplace
	if !replace {
		attrs := netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
		if err := l.Netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: attrs}); err != nil {
			return nic.Denied(err, fmt.Sprintf("make a clsact qdisc on device %d", index), "CAP_NET_ADMIN")
		}
		set = l.Netlink.FilterAdd
	}
	err := set(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          program.FD(), Name: "junction_egress", DirectAction: true,
	})
	return nic.Denied(err, fmt.Sprintf("check what comes from device %d", index), "CAP_NET_ADMIN")
}

// To makes the program that sends all there is to the device with number index:
// for who owns that.
func To(index int) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "junction_outlet", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(index)),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),
		}})
	return p, nic.Denied(err, "load the program of an outlet", "CAP_BPF", "CAP_NET_ADMIN")
}
