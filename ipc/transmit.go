package ipc

import (
	"sync/atomic"
	"time"
)

// txSide is the transmit side of an End.
type txSide struct {
	ring  producer
	sleep sleeper
	peer  ringer // wakes a consumer that waits for frames
	bell  bell
	noHdr [VnetHdrLen]byte

	staged, stagedBytes uint64 // put and not yet published

	packets, bytes, rings, sleeps, unflushed atomic.Uint64
	full, tooLong, badFrame                  atomic.Uint64
	breaches                                 [breaches]atomic.Uint64
}

// Transmit writes one frame, the concatenation of parts, into the ring; hdr is
// its virtio_net_hdr, nil stands for one of zeros. It is done with both when it
// returns. The other side sees the frame after Flush. ErrFull: not taken, flush
// and try again. ErrTooLong and ErrBadFrame: not taken, trying again is useless.
func (e *End) Transmit(hdr *[VnetHdrLen]byte, parts [][]byte) error {
	t := &e.tx
	total, err := t.check(parts)
	if err != nil {
		return err
	}
	if hdr == nil {
		hdr = &t.noHdr
	}
	if err := e.txErr(); err != nil {
		return err
	}
	ok, bad := t.ring.put(hdr, parts, uint32(VnetHdrLen+total))
	switch {
	case bad != nil:
		return e.fail(bad, &t.breaches)
	case !ok:
		t.full.Add(1)
		return ErrFull
	}
	t.staged++
	t.stagedBytes += uint64(total)
	return nil
}

// check returns the length of the frame.
func (t *txSide) check(parts [][]byte) (total int, err error) {
	for _, b := range parts {
		if len(b) > MaxFrame-total {
			t.tooLong.Add(1)
			return 0, ErrTooLong
		}
		total += len(b)
	}
	if total < MinFrame {
		t.badFrame.Add(1)
		return 0, ErrBadFrame
	}
	return total, nil
}

// txErr is Err; it settles the account of frames that will never be flushed.
func (e *End) txErr() error {
	err := e.Err()
	if err != nil && e.tx.staged > 0 {
		e.tx.unflushed.Add(e.tx.staged)
		e.tx.staged, e.tx.stagedBytes = 0, 0
	}
	return err
}

// Flush shows the other side what has been transmitted and wakes it if it
// sleeps: one system call then, none otherwise. It never returns ErrFull.
func (e *End) Flush() error {
	t := &e.tx
	if err := e.txErr(); err != nil || t.staged == 0 {
		return err
	}
	t.ring.publish()
	t.packets.Add(t.staged)
	t.bytes.Add(t.stagedBytes)
	t.staged, t.stagedBytes = 0, 0
	if t.peer.due() {
		t.rings.Add(1)
		t.bell.ring()
	}
	return nil
}

// TransmitWait blocks until there may be room for the frame that was refused
// last, or Wake is called. It returns net.ErrClosed, ErrPeer or ErrGone when
// there will never be. Flush before, or the other side has nothing to release.
func (e *End) TransmitWait() error {
	if !e.TxPrepareWait() {
		return e.txErr()
	}
	err := e.tx.bell.wait()
	e.tx.sleep.awake()
	e.tx.bell.mute() // it waits so rarely
	e.tx.bell.clear()
	return e.txAfter(err)
}

// Drained tells whether the other side has released all that was flushed. Its
// error is Err's.
func (e *End) Drained() (bool, error) {
	if err := e.txErr(); err != nil {
		return false, err
	}
	p := &e.tx.ring
	if bad := p.look(); bad != nil {
		return false, e.fail(bad, &e.tx.breaches)
	}
	return p.seen == p.shown, nil
}

// Released returns a number that changes when the other side has released more of
// what was flushed. It wraps around. Its error is Err's.
func (e *End) Released() (uint32, error) {
	_, err := e.Drained()
	return e.tx.ring.seen, err
}

// DrainWait blocks until the other side has released more of it, or Wake is
// called. Errors are TransmitWait's.
func (e *End) DrainWait() error {
	e.tx.ring.need = e.tx.ring.size() // no room is enough but all of it
	defer func() { e.tx.ring.need = 0 }()
	return e.TransmitWait()
}

// TxPrepareWait is RxPrepareWait for room in the ring.
func (e *End) TxPrepareWait() bool {
	if e.txErr() != nil {
		return false
	}
	t := &e.tx
	t.sleep.asleep()
	t.sleeps.Add(1)
	if t.ring.worthWaiting() {
		return true
	}
	t.sleep.awake()
	return false
}

// TxSleep sleeps between TxPrepareWait and TxFinishWait, until there may be room,
// Wake or Close is called, or until has come, which is no error. Meanwhile
// another goroutine may call Transmit and Flush, but not the next wait.
func (e *End) TxSleep(until time.Time) error {
	b := &e.tx.bell
	err := b.waitUntil(until)
	b.mute()
	if err != nil {
		return err
	}
	b.clear()
	return nil
}

// TxFinishWait ends the sleep that TxPrepareWait has announced.
func (e *End) TxFinishWait() error {
	e.tx.sleep.awake()
	e.tx.bell.clearSocket()
	return e.txAfter(nil)
}

// TxFD is RxFD for room in the ring.
func (e *End) TxFD() int { return e.tx.bell.socket }

func (e *End) txAfter(err error) error {
	if bad := e.txErr(); bad != nil {
		return bad
	}
	if err == nil && e.tx.bell.gone.Load() && e.tx.ring.worthWaiting() {
		return ErrGone
	}
	return err
}
