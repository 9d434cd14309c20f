package nic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Watch tells when a NIC disappears: deleted, or moved to another namespace.
type Watch struct {
	fd, index int
	gone      bool
}

// NewWatch watches the NIC with the given index in the calling thread's
// network namespace.
func NewWatch(index int) (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch the NIC: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch the NIC: %w", err)
	}
	return &Watch{fd: fd, index: index}, nil
}

// FD becomes readable when Gone may have changed.
func (w *Watch) FD() int { return w.fd }

// Gone reads the notifications that wait and says whether the NIC has
// disappeared. One goroutine at a time may call it.
func (w *Watch) Gone() bool {
	var buf [8192]byte
	for !w.gone {
		n, _, err := unix.Recvfrom(w.fd, buf[:], 0)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			break
		}
		w.gone = deletes(buf[:n], w.index)
	}
	return w.gone
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
