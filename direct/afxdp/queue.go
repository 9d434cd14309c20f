package afxdp

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Queue is one AF_XDP socket with its umem; it implements nic.Queue.
type Queue struct {
	life nic.Lifetime
	dev  *Device
	id   int
	fd   int
	// epoll tells when the kernel finishes with sent frames: the socket
	// itself is writable before that.
	epoll    int
	zeroCopy bool
	checks   bool // looks for news of the NIC
	maps     []mapping
	rxPoll   [3]unix.PollFd

	_ [64]byte // the sides are used by different cores
	r receiver
	_ [64]byte
	t transmitter
	_ [64]byte

	// outlet is where frames leave that the socket does not take; nil: there is
	// none.
	outlet   *nic.FileWriter
	outletFD int
	all      bool // leaves by it
	waits    bool // for it to take more

	retry     bool // the kernel has not taken all that is published
	txDropped atomic.Uint64
	syscalls  atomic.Uint64

	finalMu sync.Mutex
	final   unix.XDPStatistics // at Close
}

// Receive implements nic.Queue.
func (q *Queue) Receive(batch [][]byte) (int, error) {
	if q.life.Closed() {
		return 0, net.ErrClosed
	}
	return q.r.receive(batch), nil
}

// Release implements nic.Queue.
func (q *Queue) Release() {
	if !q.r.release() || q.life.Enter() != nil {
		return
	}
	defer q.life.Leave()
	q.syscalls.Add(1)
	// Wakes the driver's receive side; there is nothing to read.
	_, _, _ = unix.Syscall6(unix.SYS_RECVFROM, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
}

// Wait implements nic.Queue.
func (q *Queue) Wait() error {
	if q.life.Closed() {
		return net.ErrClosed
	}
	if q.r.ring.waiting(1) > 0 {
		return nil
	}
	if err := q.dev.watch.Err(); err != nil {
		return err
	}
	q.r.ring.consumed() // also what was no frame, and so nobody releases
	q.syscalls.Add(1)
	return q.life.WaitFrames(&q.rxPoll, q.fd, q.dev.watch, q.checks, q.dev.queues)
}

// Wake implements nic.Queue.
func (q *Queue) Wake() { q.life.Wake() }

// Transmit implements nic.Queue.
func (q *Queue) Transmit(hdr *[nic.VnetHdrLen]byte, parts [][]byte) error {
	if q.life.Closed() {
		return net.ErrClosed
	}
	if q.outlet != nil && (q.all || q.t.leaves(hdr)) {
		return q.leave(hdr, parts)
	}
	return q.t.transmit(hdr, parts)
}

// Flush implements nic.Queue.
func (q *Queue) Flush() error {
	if q.t.queued == 0 && !q.retry {
		return nil
	}
	if err := q.life.Enter(); err != nil {
		return err
	}
	defer q.life.Leave()
	q.t.publish()
	q.retry = false
	if q.zeroCopy && !q.t.ring.wantsWakeup() {
		return nil
	}
	return q.kick()
}

// kick makes the kernel send what is published. In steady state it is one
// system call; more are needed only when the kernel stops before the end.
func (q *Queue) kick() error {
	for before := q.t.unsent(); ; {
		q.syscalls.Add(1)
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		case unix.EBUSY: // one frame was dropped below us
			q.txDropped.Add(1)
		case unix.EAGAIN, unix.ENOBUFS:
		default: // the NIC is down, for instance
			q.retry = true
			return fmt.Errorf("send on %s queue %d: %w", q.dev.name, q.id, errno)
		}
		left := q.t.unsent()
		if left == 0 || q.zeroCopy {
			return nil
		}
		if left == before {
			q.retry = true
			return nic.ErrFull
		}
		before = left
	}
}

// TransmitWait implements nic.Queue.
func (q *Queue) TransmitWait() error {
	if q.life.Closed() {
		return net.ErrClosed
	}
	if q.waits {
		q.waits = false
		return q.outlet.TransmitWait()
	}
	if q.t.reclaim() > 0 && !q.retry {
		return nil
	}
	if err := q.life.Enter(); err != nil {
		return err
	}
	defer q.life.Leave()
	timeout := -1
	if q.retry { // the driver is busy, and tells nobody when it no longer is
		timeout = 1
	}
	return q.awaitTransmit(timeout)
}

// awaitTransmit blocks until the kernel has finished with frames, for timeout
// milliseconds at most unless that is -1. Only between Enter and Leave.
func (q *Queue) awaitTransmit(timeout int) error {
	var events [2]unix.EpollEvent
	for {
		q.syscalls.Add(1)
		n, err := unix.EpollWait(q.epoll, events[:], timeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for room on %s: %w", q.dev.name, err)
		}
		for _, e := range events[:n] {
			if int(e.Fd) != q.fd {
				q.life.TXBell().Clear()
			}
		}
		if q.life.Closed() {
			return net.ErrClosed
		}
		return nil
	}
}

// Stats implements nic.Queue.
func (q *Queue) Stats() nic.QueueStats {
	k := q.kernelStats()
	noBuffer := min(k.Rx_dropped, k.Rx_fill_ring_empty_descs)
	dropped := q.txDropped.Load()
	s := nic.QueueStats{
		RxPackets:  q.r.packets.Load(),
		RxBytes:    q.r.bytes.Load(),
		TxPackets:  q.t.packets.Load() - min(q.t.packets.Load(), dropped+k.Tx_invalid_descs),
		TxBytes:    q.t.bytes.Load(),
		Syscalls:   q.syscalls.Load(),
		BadIndices: q.r.badIndex.Load() + q.t.badIndex.Load(),
		Drops: map[string]uint64{
			"rx_ring_full":       k.Rx_ring_full,
			"rx_fill_ring_empty": noBuffer,
			"rx_too_long":        k.Rx_dropped - noBuffer,
			"rx_invalid_desc":    q.r.invalid.Load(),
			"tx_invalid_desc":    k.Tx_invalid_descs,
			"tx_device":          dropped,
		},
		Refused: map[string]uint64{
			"tx_full":       q.t.full.Load(),
			"tx_too_long":   q.t.tooLong.Load(),
			"tx_bad_frame":  q.t.badFrame.Load(),
			"tx_bad_header": q.t.bad.Load(),
		},
	}
	if q.outlet != nil {
		s.Add(q.outlet.Stats())
	}
	return s
}

func (q *Queue) kernelStats() unix.XDPStatistics {
	if q.life.Enter() == nil {
		defer q.life.Leave()
		if s, err := statistics(q.fd); err == nil {
			return s
		}
	}
	q.finalMu.Lock()
	defer q.finalMu.Unlock()
	return q.final
}

// close gives the socket back. Memory stays addressable until the queue is
// collected, since the sides look at it without a lock.
func (q *Queue) close() {
	q.life.Close(func() {
		q.finalMu.Lock()
		q.final, _ = statistics(q.fd)
		q.finalMu.Unlock()
		for _, m := range q.maps {
			m.detach()
		}
		_ = unix.Close(q.epoll)
		q.closeFiles()
	})
}

func (q *Queue) closeFiles() {
	_ = unix.Close(q.fd)
	if q.outletFD >= 0 {
		_ = unix.Close(q.outletFD)
	}
}

// freeLater unmaps the queue's memory once nobody can reach it any more.
func (q *Queue) freeLater() {
	runtime.AddCleanup(q, func(maps []mapping) {
		for _, m := range maps {
			m.free()
		}
	}, q.maps)
}
