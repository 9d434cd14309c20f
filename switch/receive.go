package modeswitch

import (
	"runtime"
	"time"
)

// receiver is the goroutine that empties one queue.
type receiver struct {
	e     *Endpoint
	q     *queue
	sink  *sink
	batch [][]byte
	// count collects a batch's counts, merged once per batch.
	count counters
}

// run receives until the endpoint is stopped or the queue fails. While it is
// awake it flushes for the writers too: after each batch, once those whom the
// batch has woken have had their turn, and while it looks for further frames.
func (r *receiver) run() {
	var idle idleTimer
	defer r.q.flushFor(false)
	for !r.q.path.stopped.Load() {
		n, err := r.q.Receive(r.batch)
		switch {
		case n > 0:
			r.q.arrears.found(n < len(r.batch))
			r.handle(r.batch[:n])
			r.q.Release()
			idle.reset()
			runtime.Gosched()
			r.q.flushFor(true)
		case err != nil:
			r.q.arrears.empty()
			return
		case idle.spin(r.e.opts.Spin):
			r.q.arrears.empty()
			if r.q.dirty.Load() {
				r.q.flushFor(true)
			}
		default:
			r.q.arrears.empty()
			r.q.flushFor(false)
			if r.sleep() != nil {
				return
			}
			idle.reset()
		}
	}
}

// sleep waits for frames.
func (r *receiver) sleep() error {
	r.count.wakes++
	r.merge()
	return r.q.Wait()
}

func (r *receiver) handle(frames [][]byte) {
	r.count.calls++
	// Looked at after the frames were received: those that came before the merger
	// are not in any order with others.
	if m := r.e.merger.Load(); m != nil && m.handle(r.q.path, frames) {
		r.merge()
		return
	}
	for _, f := range frames {
		r.count.packets++
		r.count.bytes += uint64(max(0, len(f)-VnetHdrLen))
		if reason, ok := r.sink.deliver(r.q.path, f); ok {
			r.count.passed++
		} else {
			r.count.drops[reason]++
		}
	}
	r.sink.flush()
	r.merge()
}

func (r *receiver) merge() {
	r.q.rxMu.Lock()
	r.q.rx.add(&r.count)
	r.q.rxMu.Unlock()
	r.count = counters{}
}

// idleTimer measures how long a queue has been found empty.
type idleTimer struct{ since time.Time }

func (t *idleTimer) reset() { t.since = time.Time{} }

// spin yields and returns true as long as less than d has passed since the
// first call after reset.
func (t *idleTimer) spin(d time.Duration) bool {
	if d <= 0 {
		return false
	}
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	} else if now.Sub(t.since) >= d {
		return false
	}
	runtime.Gosched()
	return true
}
