package netserver

import (
	"errors"
	"slices"
	"time"

	"junction/direct"
	"junction/ipc"
)

const defaultPatience = 10 * time.Millisecond

// hold takes the right to use an outlet, instead of the one held until now. It
// returns false if an instance's turn at a ring has not come in time.
func (w *worker) hold(o *outlet) bool {
	if w.held == o {
		return true
	}
	w.letGo()
	if w.port != nil && w.turn != o {
		w.endTurn(true)
		var until time.Time
		if !o.uplink {
			until = w.deadline()
		}
		if !o.gate.enter(w.share(o), until, w.timer) {
			return false
		}
		w.turn = o
	}
	o.mu.Lock()
	w.held = o
	return true
}

func (w *worker) letGo() {
	if w.held != nil {
		w.held.mu.Unlock()
		w.held = nil
	}
}

// share is the source's at an outlet. That at rings begins anew each time.
func (w *worker) share(o *outlet) *share {
	s := &w.visit
	if o.uplink {
		s = &w.shares[o.index]
	}
	s.weight = int64(max(1, w.port.weight.Load()))
	return s
}

// endTurn lets others through the gate. It must not hold the outlet.
func (w *worker) endTurn(more bool) {
	if w.turn != nil {
		o := w.turn
		w.turn = nil
		o.gate.leave(w.share(o), more)
	}
}

// spend charges a frame to the source's turn, and ends that if it is used up:
// then what it has put into the uplink goes out.
func (w *worker) spend(o *outlet, parts [][]byte) {
	if w.turn != o {
		return
	}
	s := w.share(o)
	for _, p := range parts {
		s.credit -= int64(len(p))
	}
	if !o.gate.over(s) {
		return
	}
	o.flush(o.uplink)
	w.touched = slices.DeleteFunc(w.touched, func(t *outlet) bool { return t == o })
	w.letGo()
	w.endTurn(true)
}

// deadline is until when the present batch may wait for rings.
func (w *worker) deadline() time.Time {
	if w.until.IsZero() {
		w.until = time.Now().Add(w.s.opts.Patience)
	}
	return w.until
}

// await waits until an outlet that was full takes the frame, and returns why it
// does not. For the wire it takes as long as that takes; a ring has as much time
// as the batch has left, unless it was waited for in vain and has taken nothing since.
func (w *worker) await(o *outlet, parts [][]byte) error {
	err := error(direct.ErrFull)
	if !o.uplink {
		err = ipc.ErrFull
	}
	for full(err) {
		var werr error
		switch {
		case o.uplink:
			werr = o.q.TransmitWait()
		case o.stuck || o.room == nil:
			return err
		case !time.Now().Before(w.deadline()):
			o.stuck = true
			return err
		default:
			werr = w.awaitRoom(o)
		}
		if werr != nil {
			return werr
		}
		if err = o.transmit(&w.hdr, parts); err == nil && w.turn == o {
			o.gate.progress(w.share(o))
		}
	}
	return err
}

// awaitRoom waits for room in a ring, which others may use meanwhile.
func (w *worker) awaitRoom(o *outlet) error {
	if !o.room.TxPrepareWait() {
		return nil
	}
	w.letGo()
	err := o.room.TxSleep(w.deadline())
	o.mu.Lock()
	w.held = o
	return errors.Join(err, o.room.TxFinishWait())
}
