package tap

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// namespace is a network namespace that exists as long as this process holds
// it. A macvtap in it is deleted by the kernel when the process ends, however
// that happens, so that the NIC below is free again.
type namespace struct {
	fd   netns.NsHandle
	link *netlink.Handle
}

// newNamespace makes an empty network namespace.
func newNamespace() (*namespace, error) {
	ns := &namespace{fd: netns.None()}
	err := elsewhere(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return nic.Denied(err, "make a network namespace for the macvtap", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD")
		}
		if ns.fd, err = netns.Get(); err != nil {
			return err
		}
		ns.link, err = netlink.NewHandleAt(ns.fd, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		ns.close()
		return nil, err
	}
	return ns, nil
}

// do calls f with the calling thread in the namespace.
func (ns *namespace) do(f func() error) error {
	return elsewhere(func() error {
		if err := enter(ns.fd); err != nil {
			return fmt.Errorf("enter the macvtap's network namespace: %w", err)
		}
		return f()
	})
}

func (ns *namespace) close() {
	if ns.link != nil {
		ns.link.Close()
	}
	if ns.fd.IsOpen() {
		_ = ns.fd.Close()
	}
}

// elsewhere calls f, which may change the calling thread's network namespace,
// and restores that. A thread that cannot be brought back stays locked to the
// goroutine and ends with it.
func elsewhere(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	err = f()
	if back := enter(home); back != nil {
		return errors.Join(err, fmt.Errorf("return to the NIC's network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// enter moves the calling thread to ns, which takes a privilege, unless it is
// there already.
func enter(ns netns.NsHandle) error {
	if now, err := netns.Get(); err == nil {
		defer now.Close()
		if now.Equal(ns) {
			return nil
		}
	}
	return netns.Set(ns)
}
