package tap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
	"junction/direct/internal/tun"
)

// addMacvtap puts a macvtap in passthru mode on the NIC and opens n queues of
// it. All frames that the NIC receives then go there. The macvtap is in a
// network namespace that ends with this process.
func (d *Device) addMacvtap(n int) (fds []int, err error) {
	if d.private, err = newNamespace(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			tun.CloseAll(fds)
			fds = nil
			d.removeMacvtap()
		}
	}()
	err = d.private.do(func() (err error) {
		fds, err = d.openMacvtap(n)
		return err
	})
	return fds, err
}

// openMacvtap makes the macvtap and opens its queues. It runs in the private
// namespace, whose device events tell the number of the character device.
func (d *Device) openMacvtap(n int) (fds []int, err error) {
	events, err := listenUevents()
	if err != nil {
		return nil, err
	}
	defer unix.Close(events)
	if err := d.makeMacvtap(n); err != nil {
		return nil, err
	}
	dev, err := findNode(events, fmt.Sprintf("tap%d", d.macvtap.Attrs().Index))
	if err != nil {
		return nil, err
	}
	if fds, err = openNode(dev, n); err != nil {
		return fds, err
	}
	for _, fd := range fds {
		if err = setMacvtapFlags(fd); err != nil {
			return fds, err
		}
	}
	// Without it the NIC's driver passes on only groups that the host's kernel
	// has joined, and IPv6 finds no neighbours.
	if err := d.private.link.LinkSetAllmulticastOn(d.macvtap); err != nil {
		return fds, fmt.Errorf("receive all multicast on %s: %w", d.name, err)
	}
	return fds, d.private.link.LinkSetUp(d.macvtap)
}

// removeMacvtap deletes the macvtap and its namespace at once, where the
// kernel would take a moment to.
func (d *Device) removeMacvtap() {
	if d.private == nil {
		return
	}
	if d.macvtap != nil {
		// It fails when the NIC below has gone, and took the macvtap with it.
		_ = d.private.link.LinkDel(d.macvtap)
	}
	d.private.close()
	d.private = nil
}

// macvtapName is what the macvtap is called in its own namespace.
const macvtapName = "macvtap0"

// makeMacvtap makes d.macvtap. A NIC whose former holder was killed may be
// busy for a moment, until the kernel has removed that one's namespace.
func (d *Device) makeMacvtap(n int) error {
	d.macvtap = nil
	lower := d.link.Attrs()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = macvtapName, lower.Index, netlink.NsFd(d.private.fd)
	attrs.NumTxQueues, attrs.NumRxQueues, attrs.TxQLen = n, n, queueLength
	if lower.Xdp != nil && lower.Xdp.Attached {
		return d.link.InUse(0) // it would take the frames first
	}
	err := d.link.Netlink.LinkAdd(&netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PASSTHRU}})
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w (it is a port of a bridge, or carries another macvlan: %w)", d.link.InUse(0), err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: macvtap: %w; load the module macvtap", nic.ErrUnsupported, err)
	case err != nil:
		return nic.Denied(err, "make a macvtap on "+d.name, "CAP_NET_ADMIN")
	}
	if d.macvtap, err = d.private.link.LinkByName(macvtapName); err != nil {
		return fmt.Errorf("find the macvtap on %s: %w", d.name, err)
	}
	// The host must not send router solicitations through it.
	if err := d.private.link.LinkSetIP6AddrGenMode(d.macvtap, 1 /* none */); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		d.link.Warn("the host may send IPv6 neighbour discovery on %s: %v", d.name, err)
	}
	return nil
}

func setMacvtapFlags(fd int) error {
	request, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	request.SetUint16(tun.Flags | unix.IFF_MULTI_QUEUE)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("set the flags of the macvtap: %w", err)
	}
	return nil
}

// listenUevents opens a socket for the kernel's device events of the calling
// thread's network namespace. /sys would tell the device numbers too, but only
// if that of the right namespace is mounted.
func listenUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, fmt.Errorf("listen for device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("listen for device events: %w", err)
	}
	return fd, nil
}

// findNode returns the device number of the character device name, whose event
// the kernel has sent before it answered the request that made it.
func findNode(events int, name string) (uint64, error) {
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(events, buf, 0)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find the device number of %s: no event: %w", name, err)
		}
		if dev, ok := parseUevent(buf[:n], name); ok {
			return dev, nil
		}
	}
}

// parseUevent returns the device number if message b (NUL-terminated KEY=VALUE)
// says that the device name has been added.
func parseUevent(b []byte, name string) (uint64, bool) {
	fields := map[string]string{}
	for _, field := range bytes.Split(b, []byte{0}) {
		if key, value, ok := bytes.Cut(field, []byte{'='}); ok {
			fields[string(key)] = string(value)
		}
	}
	major, err1 := strconv.ParseUint(fields["MAJOR"], 10, 12)
	minor, err2 := strconv.ParseUint(fields["MINOR"], 10, 20)
	ok := err1 == nil && err2 == nil && fields["ACTION"] == "add" && fields["DEVNAME"] == name
	return unix.Mkdev(uint32(major), uint32(minor)), ok
}

// openNode opens the character device dev n times, through a node that exists
// only meanwhile. Not every file system permits device nodes.
func openNode(dev uint64, n int) (fds []int, err error) {
	for _, parent := range []string{os.TempDir(), "/dev", "/run"} {
		fds, err = openNodeIn(parent, dev, n)
		if err == nil {
			return fds, nil
		}
		tun.CloseAll(fds)
	}
	return nil, nic.Denied(err, "make a node for the macvtap in /tmp, /dev or /run", "CAP_MKNOD")
}

func openNodeIn(parent string, dev uint64, n int) (fds []int, err error) {
	dir, err := os.MkdirTemp(parent, "junction-tap-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "tap")
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(dev)); err != nil {
		return nil, err
	}
	for range n {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}
