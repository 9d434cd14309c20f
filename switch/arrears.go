package modeswitch

import (
	"sync/atomic"
	"time"
)

// arrears tells for how long frames may have waited in a queue. The receiver
// says what it found, anybody may ask.
type arrears struct {
	since atomic.Int64 // a moment, see sinceStart; 0: the queue was found empty
	left  bool         // the last batch was full: more may have been there
}

// found is told of each batch; all says that there was room for more frames.
// What is in the queue afterwards came after the last batch that took all.
func (a *arrears) found(all bool) {
	if !a.left {
		a.since.Store(sinceStart())
	}
	a.left = !all
}

// empty is told that there was no frame.
func (a *arrears) empty() {
	if a.since.Load() != 0 {
		a.since.Store(0)
	}
	a.left = false
}

// age bounds for how long the oldest frame of the queue has waited.
func (a *arrears) age() time.Duration {
	since := a.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(max(0, sinceStart()-since))
}

var start = time.Now()

// sinceStart is never 0.
func sinceStart() int64 { return int64(time.Since(start)) + 1 }

// OldestFrame bounds for how long a received frame may have waited for its
// queue's goroutine: the time since that took the last frame from the queue, or,
// while it falls behind, since it last had taken all. 0: it has found all
// queues empty. It is the delay by which Caladan (OSDI 2020) tells that an instance
// is short of cores. It may be called at any time, and costs the receivers a look
// at the clock for each batch.
func (e *Endpoint) OldestFrame() time.Duration {
	var oldest time.Duration
	for _, p := range *e.paths.Load() {
		for _, q := range p.queues {
			oldest = max(oldest, q.arrears.age())
		}
	}
	return oldest
}
