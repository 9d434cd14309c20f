// Package tun attaches to TAPs (Documentation/networking/tuntap.rst of the Linux
// kernel).
package tun

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

const path = "/dev/net/tun"

// Flags: Ethernet frames behind a virtio_net_hdr and nothing else.
const Flags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// Make makes the TAP name, which must not exist, with n queues. Descriptors and errors
// are as Attach's. With one queue it is not multi_queue: for that the kernel makes 256
// of each kind, which takes a processor more than a millisecond.
func Make(name string, n int) (fds []int, err error) {
	flags := uint16(Flags | unix.IFF_TUN_EXCL)
	if n > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	fd, err := attachOne(name, flags)
	if err != nil {
		return nil, explain(err, name, n)
	}
	more, err := Attach(name, n-1)
	return append([]int{fd}, more...), err
}

// Attach attaches n queues to the TAP name, and makes it if it does not exist.
// The caller closes the descriptors, also those that come with an error. Errors:
// nic.ErrUnsupported, ErrInUse, ErrPermission.
func Attach(name string, n int) (fds []int, err error) {
	for range n {
		fd, err := attachOne(name, Flags|unix.IFF_MULTI_QUEUE)
		if errors.Is(err, unix.EINVAL) && n == 1 {
			fd, err = attachOne(name, Flags) // made without multi_queue
		}
		if err != nil {
			return fds, explain(err, name, n)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func attachOne(name string, flags uint16) (int, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return -1, fmt.Errorf("NIC name %q: %w", name, err)
	}
	request.SetUint16(flags)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func explain(err error, name string, n int) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: TAP: %w; load the module tun, or make the device: mknod %s c 10 200", nic.ErrUnsupported, err, path)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %d queues on TAP %s: make it with: ip tuntap add %s mode tap multi_queue", nic.ErrUnsupported, n, name, name)
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%w: %d queues on TAP %s are more than the kernel permits", nic.ErrUnsupported, n, name)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: TAP %s", nic.ErrInUse, name)
	}
	return nic.Denied(err, "attach to TAP "+name, "CAP_NET_ADMIN")
}

// Configure makes the kernel leave checksums and the segments of TCP to us,
// both ways, and use the virtio_net_hdr of nic.VnetHdrLen bytes. Segmentation
// of UDP stays with the kernel: netstack has no use for several datagrams in
// one.
func Configure(fd int) error {
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

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
