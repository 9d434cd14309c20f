package ipc

import "sync/atomic"

// copyAlign is how private copies are aligned: on cache lines.
const copyAlign = 64

// rxSide is the receive side of an End.
type rxSide struct {
	ring  consumer
	sleep sleeper
	peer  ringer // wakes a producer that waits for room
	bell  bell

	copies []byte // private memory for received frames
	used   int    // bytes of copies in use

	packets, bytes, rings, sleeps atomic.Uint64
	breaches                      [breaches]atomic.Uint64
}

// Receive stores up to len(batch) waiting frames in batch, without blocking or
// allocating, and returns their number. Each is a virtio_net_hdr and the
// Ethernet frame, in memory of this process, and valid until Release.
func (e *End) Receive(batch [][]byte) (int, error) {
	r := &e.rx
	n, total := 0, 0
	known, err := e.waiting()
	for ; n < len(batch) && known; n++ {
		f, bad := r.ring.peek()
		if bad != nil {
			err = e.fail(bad, &r.breaches)
			break
		}
		batch[n] = r.copy(f.off, int(f.n))
		r.ring.advance(f)
		total += int(f.n)
		known = r.ring.known() > 0
	}
	r.count(n, total)
	if n > 0 {
		return n, nil // an error that stays comes again
	}
	return 0, err
}

// waiting says whether there are frames in the ring.
func (e *End) waiting() (bool, error) {
	if err := e.Err(); err != nil {
		return false, err
	}
	// One look a batch: frames that are known of already are left first only if
	// the last batch was too short for them.
	if bad := e.rx.ring.look(); bad != nil {
		return false, e.fail(bad, &e.rx.breaches)
	}
	return e.rx.ring.known() > 0, nil
}

// copy returns a private copy of n bytes from offset off on.
func (r *rxSide) copy(off, n int) []byte {
	b := r.copies[r.used : r.used+n : r.used+n]
	r.ring.copyOut(b, off)
	r.used += (n + copyAlign - 1) &^ (copyAlign - 1)
	return b
}

func (r *rxSide) count(packets, total int) {
	if packets > 0 {
		r.packets.Add(uint64(packets))
		r.bytes.Add(uint64(total - packets*VnetHdrLen))
	}
}

// Release gives the buffers of all frames received so far back to the
// producer, and wakes it if it waits for them. Frames that are not released
// hold up the producer, so release before waiting.
func (e *End) Release() {
	r := &e.rx
	r.used = 0
	if r.ring.own == r.ring.shown {
		return
	}
	r.ring.release()
	if r.peer.due() {
		r.rings.Add(1)
		r.bell.ring()
	}
}

// Wait blocks until a frame may be waiting or Wake is called. It returns
// net.ErrClosed, ErrPeer or ErrGone when nothing will ever come.
func (e *End) Wait() error {
	if !e.RxPrepareWait() {
		return e.Err()
	}
	err := e.rx.bell.wait()
	e.rx.sleep.awake()
	e.rx.bell.clear()
	return e.rxAfter(err)
}

// RxPrepareWait announces that the caller is going to sleep until RxFD is
// readable, for callers that wait for several things at once. It returns false,
// and announces nothing, if there is a frame or an error. After true the caller
// must call RxFinishWait, whatever woke it.
func (e *End) RxPrepareWait() bool {
	if e.Err() != nil {
		return false
	}
	r := &e.rx
	r.sleep.asleep()
	if r.ring.idle() {
		r.sleeps.Add(1)
		return true
	}
	r.sleep.awake()
	return false
}

// RxFinishWait ends the sleep that RxPrepareWait has announced. Its errors are
// those of Wait.
func (e *End) RxFinishWait() error {
	e.rx.sleep.awake()
	e.rx.bell.clearSocket()
	return e.rxAfter(nil)
}

// RxFD returns the descriptor that becomes readable when a frame comes while
// the receive side sleeps, for poll or epoll. It is the End's, up to Close.
func (e *End) RxFD() int { return e.rx.bell.socket }

func (e *End) rxAfter(err error) error {
	if bad := e.Err(); bad != nil {
		return bad
	}
	if err == nil && e.rx.bell.gone.Load() && e.rx.ring.idle() {
		return ErrGone
	}
	return err
}
