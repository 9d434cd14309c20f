package tap

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

const tunPath = "/dev/net/tun"

// tapFlags: Ethernet frames behind a virtio_net_hdr and nothing else.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// attachTUN attaches n queues to the TAP name, and makes it if it does not
// exist. The caller closes the descriptors, also those that come with an error.
func attachTUN(name string, n int, extra uint16) (fds []int, err error) {
	for range n {
		fd, err := attachOne(name, tapFlags|unix.IFF_MULTI_QUEUE|extra)
		if errors.Is(err, unix.EINVAL) && n == 1 {
			fd, err = attachOne(name, tapFlags|extra) // made without multi_queue
		}
		if err != nil {
			return fds, tunError(err, name, n)
		}
		fds = append(fds, fd)
		extra &^= unix.IFF_TUN_EXCL // it exists from now on
	}
	return fds, nil
}

func attachOne(name string, flags uint16) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return -1, fmt.Errorf("NIC name %q: %w", name, err)
	}
	request.SetUint16(flags)
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", tunPath, err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func tunError(err error, name string, n int) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: TAP: %w; load the module tun, or make the device: mknod %s c 10 200", nic.ErrUnsupported, err, tunPath)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %d queues on TAP %s: make it with: ip tuntap add %s mode tap multi_queue", nic.ErrUnsupported, n, name, name)
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%w: %d queues on TAP %s are more than the kernel permits", nic.ErrUnsupported, n, name)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: TAP %s", nic.ErrInUse, name)
	}
	return nic.Denied(err, "attach to TAP "+name, "CAP_NET_ADMIN")
}

// attachTAP attaches n queues to the TAP that d.link is.
func (d *Device) attachTAP(n int) ([]int, error) {
	// A multi-queue TAP would take more queues and share its frames out.
	if tun, ok := d.link.Link.(*netlink.Tuntap); ok && tun.Queues > 0 {
		return nil, d.link.InUse(nic.HolderByFDInfo("iff", d.name))
	}
	fds, err := attachTUN(d.name, n, 0)
	if err != nil {
		closeAll(fds)
	}
	if errors.Is(err, nic.ErrInUse) {
		return nil, d.link.InUse(nic.HolderByFDInfo("iff", d.name))
	}
	return fds, err
}

// configure makes the kernel leave checksums and the segments of TCP to us,
// both ways, and use the virtio_net_hdr of nic.VnetHdrLen bytes. Segmentation
// of UDP stays with the kernel: netstack has no use for several datagrams in
// one.
func configure(fd int) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, nic.VnetHdrLen); err != nil {
		return fmt.Errorf("set the TAP's header size: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
		return fmt.Errorf("set the TAP's byte order: %w", err)
	}
	offloads := unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads); err != nil {
		return fmt.Errorf("set the TAP's offloads: %w", err)
	}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// randomMAC returns a random locally administered unicast address.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}
