package ipc

import (
	"net"
	"sync/atomic"
)

// End is one side of a ring pair in the process that uses it. It has the
// methods of a device queue.
//
// One goroutine at a time may use the receive side (Receive, ReceiveViews,
// Release, Wait, and what begins with Rx), one at a time the transmit side
// (Transmit, Flush, TransmitWait, and what begins with Tx); the two are
// independent. Wake, Stats and Close may be called from anywhere. After Close
// every call returns net.ErrClosed or does nothing. After a breach of the
// protocol by the other side, in either direction, every call returns ErrPeer.
type End struct {
	opts  Options
	side  Side
	unmap func()

	closed atomic.Bool
	broken atomic.Pointer[PeerError]

	// The sides are used on different CPUs: no cache line belongs to both, or
	// to one of them and to the fields above, which both only read.
	_  pad
	rx rxSide
	_  pad
	tx txSide
}

// pad is a cache line and the one that the hardware fetches with it.
type pad [128]byte

// newEnd returns an End over two rings, without doorbells.
func newEnd(tx, rx lane) *End {
	e := &End{}
	e.tx.bell.init(&e.closed)
	e.rx.bell.init(&e.closed)
	e.tx.ring = attachProducer(tx)
	e.tx.sleep, e.tx.peer = attachSleeper(tx.txSleep), ringer{word: tx.rxSleep}
	e.rx.ring = attachConsumer(rx)
	e.rx.sleep, e.rx.peer = attachSleeper(rx.rxSleep), ringer{word: rx.txSleep}
	// Buffers that are not released keep their room in the ring, and a copy
	// takes no more than they do: what the ring holds always fits.
	e.rx.copies = make([]byte, len(rx.data))
	return e
}

func (e *End) openBells(tx, rx int) error {
	if err := e.tx.bell.open(tx); err != nil {
		closeAll([]int{rx})
		return err
	}
	if err := e.rx.bell.open(rx); err != nil {
		e.closed.Store(true)
		e.tx.bell.close()
		return err
	}
	return nil
}

// greet wakes the other side: our predecessor may have died between publishing
// and ringing.
func (e *End) greet() {
	e.tx.bell.ring()
	e.rx.bell.ring()
}

// Options returns the sizes of the ring pair.
func (e *End) Options() Options { return e.opts }

// Side returns which side this is.
func (e *End) Side() Side { return e.side }

// Err returns nil as long as the End can be used, then net.ErrClosed or ErrPeer.
func (e *End) Err() error {
	if e.closed.Load() {
		return net.ErrClosed
	}
	if bad := e.broken.Load(); bad != nil {
		return bad
	}
	return nil
}

// fail ends the use of the rings because of bad, unless it was seen only
// because Close took the memory away, and returns the error to report.
func (e *End) fail(bad *PeerError, count *[breaches]atomic.Uint64) error {
	if e.closed.Load() {
		return net.ErrClosed
	}
	count[bad.Breach].Add(1)
	e.broken.CompareAndSwap(nil, bad)
	e.Wake()
	return e.Err()
}

// Wake makes the current or else the next Wait and TransmitWait return.
func (e *End) Wake() {
	e.rx.bell.wake()
	e.tx.bell.wake()
}

// Close ends all calls that wait and gives memory and descriptors up. Frames
// that have not been flushed are lost; the next call on the transmit side
// counts them. Further calls do nothing.
func (e *End) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.rx.bell.close()
	e.tx.bell.close()
	e.unmap()
	e.unmap = nil
	return nil
}
