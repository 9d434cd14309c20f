package nic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Watch tells when a NIC disappears: deleted, or moved to another namespace.
type Watch struct {
	fd, index int
	name      string
	gone      atomic.Bool
}

// NewWatch watches the NIC with the given index in the calling thread's
// network namespace; name is for messages.
func NewWatch(index int, name string) (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch the NIC: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch the NIC: %w", err)
	}
	return &Watch{fd: fd, index: index, name: name}, nil
}

// FD becomes readable when Check may find something new.
func (w *Watch) FD() int { return w.fd }

// Err returns ErrNoNIC after Check has found that the NIC has disappeared. A nil
// Watch, of who may not watch, never does.
func (w *Watch) Err() error {
	if w == nil || !w.gone.Load() {
		return nil
	}
	return fmt.Errorf("%w: %s has been deleted or moved away while in use", ErrNoNIC, w.name)
}

// Check reads the notifications that wait. When they say that the NIC has
// disappeared it wakes the queues and returns Err. One goroutine at a time may
// call it.
func (w *Watch) Check(queues []Queue) error {
	var buf [8192]byte
	for !w.gone.Load() {
		n, _, err := unix.Recvfrom(w.fd, buf[:], 0)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return nil
		}
		if deletes(buf[:n], w.index) {
			w.gone.Store(true)
			for _, q := range queues {
				q.Wake()
			}
		}
	}
	return w.Err()
}

// deletes says whether the netlink messages in b (rtnetlink(7)) report the end
// of link index.
func deletes(b []byte, index int) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false
	}
	for _, m := range messages {
		if m.Header.Type == unix.RTM_DELLINK && len(m.Data) >= unix.SizeofIfInfomsg &&
			int(binary.NativeEndian.Uint32(m.Data[4:])) == index {
			return true
		}
	}
	return false
}

// Close releases the watch.
func (w *Watch) Close() { _ = unix.Close(w.fd) }
