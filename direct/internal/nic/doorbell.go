package nic

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Doorbell is an eventfd that ends a wait.
type Doorbell struct{ fd int }

// NewDoorbell returns a doorbell that has not rung.
func NewDoorbell() (Doorbell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return Doorbell{}, err
	}
	return Doorbell{fd}, nil
}

// Ring ends the current or the next Wait.
func (d Doorbell) Ring() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// EAGAIN means that it has rung 2^64-2 times already.
	_, _ = unix.Write(d.fd, one[:])
}

// Wait blocks until one of fds[1:] is ready, which it then shows, or the
// doorbell rings. It uses fds[0] for itself and takes back all rings until now.
func (d Doorbell) Wait(fds []unix.PollFd) error {
	fds[0] = unix.PollFd{Fd: int32(d.fd), Events: unix.POLLIN}
	for {
		_, err := unix.Ppoll(fds, nil, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && fds[0].Revents != 0 {
			d.Clear()
		}
		return err
	}
}

// Clear takes back all rings until now.
func (d Doorbell) Clear() {
	var count [8]byte
	_, _ = unix.Read(d.fd, count[:])
}

// FD returns the eventfd, for epoll.
func (d Doorbell) FD() int { return d.fd }

// Close releases the doorbell; nobody may use it any more.
func (d Doorbell) Close() { _ = unix.Close(d.fd) }
