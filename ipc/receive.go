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
func (e *End) Receive(batch [][]byte) (n int, err error) {
	if err := e.look(); err != nil {
		return 0, err
	}
	total := 0
	for ; n < len(batch); n++ {
		f, ok := e.next()
		if !ok {
			break
		}
		batch[n] = e.rx.copy(f.off, int(f.n))
		total += int(f.n)
	}
	return e.received(n, total)
}

// View is a received frame of which only the beginning has been copied.
type View struct {
	// Head is in memory of this process: the virtio_net_hdr and the beginning
	// of the frame.
	Head []byte
	// Tail is the rest, in order. It lies in the ring, where the peer may change
	// it at any time: give it to Transmit or copy it, never look at it. It does
	// not keep the End, and with it the memory, from being collected.
	Tail [2][]byte
}

// ReceiveViews is Receive for forwarders, which look at the first head bytes of
// a frame at most (virtio_net_hdr not counted) and copy the others only once.
// Head and Tail are valid until Release.
func (e *End) ReceiveViews(batch []View, head int) (n int, err error) {
	if err := e.look(); err != nil {
		return 0, err
	}
	r, total := &e.rx, 0
	for ; n < len(batch); n++ {
		f, ok := e.next()
		if !ok {
			break
		}
		k := min(VnetHdrLen+max(head, 0), int(f.n))
		v := &batch[n]
		v.Head = r.copy(f.off, k)
		v.Tail[0], v.Tail[1] = r.ring.pieces(f.off+k, int(f.n)-k)
		total += int(f.n)
	}
	return e.received(n, total)
}

// look looks for new frames, once a batch.
func (e *End) look() error {
	if err := e.Err(); err != nil {
		return err
	}
	if bad := e.rx.ring.look(); bad != nil {
		return e.fail(bad, &e.rx.breaches)
	}
	return nil
}

// next takes the next frame, if there is one and it is right.
func (e *End) next() (f chain, ok bool) {
	r := &e.rx
	if r.ring.known() == 0 {
		return chain{}, false
	}
	f, bad := r.ring.peek()
	if bad != nil {
		_ = e.fail(bad, &r.breaches)
		return chain{}, false
	}
	r.ring.advance(f)
	return f, true
}

// received counts n frames of total bytes. What has come before an error is
// delivered first: the error stays.
func (e *End) received(n, total int) (int, error) {
	if n == 0 {
		return 0, e.Err()
	}
	e.rx.packets.Add(uint64(n))
	e.rx.bytes.Add(uint64(total - n*VnetHdrLen))
	return n, nil
}

// copy returns a private copy of n bytes from offset off on.
func (r *rxSide) copy(off, n int) []byte {
	b := r.copies[r.used : r.used+n : r.used+n]
	r.ring.copyOut(b, off)
	r.used += (n + copyAlign - 1) &^ (copyAlign - 1)
	return b
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

// Mute has the other side's rings wake nobody in this process until the next Wait:
// for when what it sends is to wait.
func (e *End) Mute() { e.rx.bell.mute() }

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
	r.sleeps.Add(1)
	if r.ring.idle() {
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
