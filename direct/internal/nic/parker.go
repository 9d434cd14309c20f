package nic

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// parker waits for descriptors in the Go runtime's network poller. A blocking
// system call would keep its processor (P) from other goroutines until the
// runtime's monitor takes it away, up to 10 ms later: with GOMAXPROCS=1 that
// is the program's whole share.
//
// It is an epoll set, not the descriptors themselves, that the runtime polls,
// because that asks for output events too, which queues have all the time.
type parker struct {
	set  int
	file *os.File // of set
	conn syscall.RawConn

	// Of the one wait under way.
	fds   []unix.PollFd
	err   error
	ready func(uintptr) bool
}

func newParker(fd int) (*parker, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	if err := unix.SetNonblock(set, true); err != nil { // tells os.NewFile to poll it
		_ = unix.Close(set)
		return nil, err
	}
	p := &parker{set: set, file: os.NewFile(uintptr(set), "epoll")}
	p.ready = p.poll
	if p.conn, err = p.file.SyscallConn(); err == nil {
		err = p.add(fd)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// add adds a descriptor to the set.
func (p *parker) add(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(p.set, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("fill an epoll set: %w", err)
	}
	return nil
}

// wait blocks until one of fds[1:] is ready or d rings, and takes back the
// rings until now. It uses fds[0] for itself.
func (p *parker) wait(d Doorbell, fds []unix.PollFd) error {
	fds[0] = unix.PollFd{Fd: int32(d.FD()), Events: unix.POLLIN}
	p.fds, p.err = fds, nil
	if err := p.conn.Read(p.ready); err != nil {
		return err
	}
	if p.err == nil && fds[0].Revents != 0 {
		d.Clear()
	}
	return p.err
}

// poll looks, without blocking, whether the wait is over.
func (p *parker) poll(uintptr) bool {
	for {
		n, err := unix.Ppoll(p.fds, &unix.Timespec{}, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		p.err = err
		return n != 0 || err != nil
	}
}

func (p *parker) close() { _ = p.file.Close() }
