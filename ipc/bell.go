package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A doorbell is a pair of connected Unix stream sockets, one for the ring's
// producer and one for its consumer; either wakes the other with one byte.
//
// It is not an eventfd, because that is one open file for both sides: a hostile
// peer clears O_NONBLOCK on it and fills the counter, and whoever rings it then
// blocks for good. On a socket MSG_DONTWAIT needs no flag, which matters where a
// peer holds our end too. Nor is it a pipe, whose lock is held while a reader's memory is filled,
// which the reader can delay. Descriptors sent as messages are refused: closing
// one may block.

// newBell returns the two ends of a doorbell.
func newBell() (fds [2]int, err error) {
	fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return [2]int{-1, -1}, err
	}
	for _, fd := range fds {
		if err := refuseFiles(fd); err != nil {
			closeAll(fds[:])
			return [2]int{-1, -1}, err
		}
	}
	return fds, nil
}

// refuseFiles needs Linux 6.16 or newer to have an effect. Without it, a peer
// can make us close a descriptor of its choice.
func refuseFiles(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return err
}

// bell is one end of a doorbell together with an eventfd, private to this
// process, that Wake and close ring. One goroutine at a time waits and rings.
//
// It waits in the Go runtime's network poller: a blocking system call would keep
// its processor (P) from other goroutines until the runtime's monitor takes it
// away, up to 10 ms later. What the runtime polls is an epoll set of the two,
// because it asks for output events too, which a socket has all the time. From
// mute to the next wait the set does not hear the socket: a peer that rings for
// nothing then wakes nobody, the runtime's poller included.
type bell struct {
	socket, local int
	epoll         int      // the epoll set
	set           *os.File // the same
	conn          syscall.RawConn
	ready         func(uintptr) bool // look, bound to the bell once
	armed         bool               // the socket's events are heard
	heard         [2]unix.EpollEvent
	rang, woken   bool // by the other side, by wake or close
	waitErr       error
	gone          atomic.Bool // the other end has no holder any more
	closed        *atomic.Bool
	mu            sync.RWMutex // read-locked while a system call uses the descriptors
	scratch       [256]byte
}

// init makes b a bell that does nothing, for an owner with the given flag.
func (b *bell) init(closed *atomic.Bool) { b.socket, b.local, b.closed = -1, -1, closed }

// open takes socket over, also when it fails.
func (b *bell) open(socket int) (err error) {
	b.socket = socket
	if err := refuseFiles(socket); err != nil { // its maker may not have been the monitor
		_ = unix.Close(socket)
		return fmt.Errorf("doorbell: %w", err)
	}
	if b.local, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(socket)
		return fmt.Errorf("eventfd: %w", err)
	}
	if err = b.openSet(); err != nil {
		closeAll([]int{b.socket, b.local})
		return fmt.Errorf("epoll set: %w", err)
	}
	b.ready = b.look
	return nil
}

func (b *bell) openSet() error {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	for fd, events := range map[int]uint32{b.local: unix.EPOLLIN, b.socket: 0} {
		event := unix.EpollEvent{Events: events, Fd: int32(fd)}
		if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			_ = unix.Close(set)
			return err
		}
	}
	b.epoll = set
	if err := unix.SetNonblock(set, true); err != nil { // tells os.NewFile to poll it
		_ = unix.Close(set)
		return err
	}
	b.set = os.NewFile(uintptr(set), "doorbell")
	if b.conn, err = b.set.SyscallConn(); err != nil {
		_ = b.set.Close()
	}
	return err
}

// enter keeps the descriptors open until leave, or returns net.ErrClosed.
func (b *bell) enter() error {
	b.mu.RLock()
	if b.closed.Load() {
		b.mu.RUnlock()
		return net.ErrClosed
	}
	return nil
}

func (b *bell) leave() { b.mu.RUnlock() }

// ring wakes the other side.
func (b *bell) ring() {
	if b.enter() != nil {
		return
	}
	defer b.leave()
	// EAGAIN: so many rings are unheard that one more makes no difference.
	// EPIPE: hear will find it out.
	_ = unix.Send(b.socket, oneByte[:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

var oneByte = [1]byte{1}

// wait blocks until the other side rings or wake is called.
func (b *bell) wait() error {
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	b.rang, b.woken = false, false
	if !b.armed {
		if err := b.arm(socketEvents); err != nil {
			return err
		}
	}
	if err := b.conn.Read(b.ready); err != nil {
		return err
	}
	return b.waitErr
}

// waitUntil is wait, up to a time.
func (b *bell) waitUntil(until time.Time) error {
	if b.enter() != nil {
		return net.ErrClosed
	}
	err := b.set.SetReadDeadline(until)
	b.leave()
	if err == nil {
		err = b.wait()
	}
	if b.enter() != nil {
		return net.ErrClosed
	}
	defer b.leave()
	_ = b.set.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// mute has rings heard only from the next wait on.
func (b *bell) mute() {
	if b.enter() != nil {
		return
	}
	defer b.leave()
	if b.armed {
		_ = b.arm(0) // at worst it is heard
	}
}

// socketEvents are heard between arm and mute.
const socketEvents = unix.EPOLLIN | unix.EPOLLRDHUP

// arm has the set hear the socket, at once if it has rung already; with no events,
// it does not.
func (b *bell) arm(events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(b.socket)}
	err := unix.EpollCtl(b.epoll, unix.EPOLL_CTL_MOD, b.socket, &event)
	b.armed = err == nil && events != 0
	return err
}

// look tells, without blocking, whether a wait is over.
func (b *bell) look(uintptr) bool {
	n, err := epollNow(b.epoll, b.heard[:])
	for _, e := range b.heard[:n] {
		if int(e.Fd) == b.socket {
			b.rang = true
		} else {
			b.woken = true
		}
	}
	b.waitErr = err
	return n != 0 || err != nil
}

// clear takes back rings that have been heard.
func (b *bell) clear() {
	if b.enter() != nil {
		return
	}
	defer b.leave()
	if b.woken {
		_, _ = unix.Read(b.local, b.scratch[:8])
	}
	if b.rang {
		b.hear()
	}
}

// clearSocket is clear for callers that have waited themselves.
func (b *bell) clearSocket() {
	if b.enter() == nil {
		b.hear()
		b.leave()
	}
}

// hear reads the rings off the socket. Only between enter and leave.
func (b *bell) hear() {
	n, err := recvNow(b.socket, b.scratch[:])
	if n == 0 && err == nil || errors.Is(err, unix.ECONNRESET) {
		b.gone.Store(true)
	}
}

// wake ends the current or the next wait of this side.
func (b *bell) wake() {
	if b.enter() == nil {
		b.ringLocal()
		b.leave()
	}
}

func (b *bell) ringLocal() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(b.local, one[:]) // EAGAIN: it has rung 2^64-2 times already
}

// close ends a wait and closes the descriptors when no call uses them. closed
// must have been set before.
func (b *bell) close() {
	b.ringLocal()
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.set.Close()
	closeAll([]int{b.local, b.socket})
}
