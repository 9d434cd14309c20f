package nic

import (
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Lifetime keeps file descriptors open while a system call uses them and lets
// Close end the calls that block. Hot paths that make no system call only look
// at Closed.
type Lifetime struct {
	rx, tx Doorbell
	park   *parker // of the receive side
	closed atomic.Bool
	mu     sync.RWMutex // read-locked during system calls
}

// Init makes the doorbells.
func (l *Lifetime) Init() (err error) {
	if l.rx, err = NewDoorbell(); err != nil {
		return err
	}
	if l.tx, err = NewDoorbell(); err != nil {
		l.rx.Close()
		return err
	}
	if l.park, err = newParker(l.rx.FD()); err != nil {
		l.rx.Close()
		l.tx.Close()
	}
	return err
}

// AddRX adds fd to those that WaitRX can wait for. It must stay open until Close.
func (l *Lifetime) AddRX(fd int) error { return l.park.add(fd) }

// Closed says whether Close has begun.
func (l *Lifetime) Closed() bool { return l.closed.Load() }

// Enter begins a system call and returns net.ErrClosed if it is too late.
// After nil the caller must call Leave.
func (l *Lifetime) Enter() error {
	l.mu.RLock()
	if l.closed.Load() {
		l.mu.RUnlock()
		return net.ErrClosed
	}
	return nil
}

// Leave ends what Enter began.
func (l *Lifetime) Leave() { l.mu.RUnlock() }

// WaitRX blocks until one of fds[1:], which were given to AddRX, is ready, or
// Wake or Close is called. It uses fds[0] for itself. One goroutine at a time
// may call it.
func (l *Lifetime) WaitRX(fds []unix.PollFd) error {
	return l.wait(func() error { return l.park.wait(l.rx, fds) })
}

// WaitFrames is WaitRX for a queue whose frames come through fd. A queue with
// checks also waits for news of its NIC: it looks after all queues of w's NIC.
// It uses polls for itself.
func (l *Lifetime) WaitFrames(polls *[3]unix.PollFd, fd int, w *Watch, checks bool, queues []Queue) error {
	polls[1] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	fds := polls[:2]
	if checks {
		polls[2] = unix.PollFd{Fd: int32(w.FD()), Events: unix.POLLIN}
		fds = polls[:3]
	}
	if err := l.WaitRX(fds); err != nil {
		return err
	}
	if checks && polls[2].Revents != 0 {
		return w.Check(queues)
	}
	return w.Err()
}

// WaitTX blocks until one of fds[1:] is ready (ppoll(2)), or Wake or Close is
// called. It uses fds[0] for itself.
func (l *Lifetime) WaitTX(fds []unix.PollFd) error {
	return l.wait(func() error { return l.tx.Wait(fds) })
}

// TXBell returns the doorbell that ends waits of the transmit side.
func (l *Lifetime) TXBell() Doorbell { return l.tx }

func (l *Lifetime) wait(block func() error) error {
	if err := l.Enter(); err != nil {
		return err
	}
	defer l.Leave()
	err := block()
	if l.closed.Load() {
		return net.ErrClosed
	}
	return err
}

// Wake ends the current or the next wait of both sides.
func (l *Lifetime) Wake() {
	if l.Enter() != nil {
		return
	}
	defer l.Leave()
	l.rx.Ring()
	l.tx.Ring()
}

// Close ends all waits, waits until no system call is under way, and calls
// release once, with nobody else using the descriptors.
func (l *Lifetime) Close(release func()) {
	if l.closed.Swap(true) {
		return
	}
	l.rx.Ring()
	l.tx.Ring()
	l.mu.Lock()
	defer l.mu.Unlock()
	release()
	l.park.close()
	l.rx.Close()
	l.tx.Close()
}
