package modeswitch

import (
	"context"
	"time"
)

// turn is a Move that waits for a moment when the old path has sent all that it
// had. Whoever is about to send looks for it.
type turn struct {
	from, to *Path
	done     chan struct{} // closed when packets leave by to
}

// awaitTurn waits for such a moment and makes packets leave by to. It returns
// false if there is none in time.
func (e *Endpoint) awaitTurn(ctx context.Context, from, to *Path) bool {
	t := &turn{from, to, make(chan struct{})}
	e.turn.Store(t)
	t.now() // for there may be nobody who sends
	timer := time.NewTimer(e.look)
	defer timer.Stop()
	select {
	case <-t.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	if e.turn.CompareAndSwap(t, nil) {
		return false
	}
	<-t.done // somebody has just found it
	return true
}

func (t *turn) now() {
	q := t.from.queues[0]
	q.txMu.Lock()
	defer q.txMu.Unlock()
	t.take(q)
}

// take makes packets leave by the new path if the old one is empty. With all of
// its queues locked nobody sends by it meanwhile, and who wanted to looks again at
// where to.
//
// +checklocks:q.txMu
func (t *turn) take(q *queue) {
	queues := t.from.queues
	n := 0
	for n < len(queues) && t.emptied(queues[n], q) {
		n++
	}
	if e := t.from.e; n == len(queues) && e.turn.CompareAndSwap(t, nil) {
		e.egress.Store(t.to)
		close(t.done)
	}
	for _, other := range queues[:n] {
		if other != q {
			other.txMu.Unlock()
		}
	}
}

// emptied locks a queue, unless it is the one that is locked already, if it has
// nothing to send. It does not wait for a lock: its owner may be waiting for ours.
func (t *turn) emptied(q, locked *queue) bool {
	if q == locked {
		return q.empty()
	}
	if !q.txMu.TryLock() {
		return false
	}
	if !q.empty() {
		q.txMu.Unlock()
		return false
	}
	return true
}

// empty tells whether the device has sent all that was given to it.
//
// +checklocks:q.txMu
func (q *queue) empty() bool {
	if q.waiting || q.dirty.Load() || q.closed {
		return false
	}
	d, ok := q.Queue.(Drainer)
	if !ok {
		return true
	}
	done, err := d.Drained()
	return done && err == nil
}
