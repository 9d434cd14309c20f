package netserver

import (
	"sync/atomic"
	"time"
)

// pacer holds an instance's sending to a rate: after a batch its worker waits
// until the batch's bytes have become due. Nothing is dropped: the ring fills, and
// the instance waits.
type pacer struct {
	rate atomic.Uint64 // bytes per second; 0: no limit
	due  time.Time     // when what was sent is paid for
	quit chan struct{} // closed when the instance leaves
}

// burst is for how long an instance that was silent may send at any rate, lest a
// timer run for each batch.
const burst = 5 * time.Millisecond

// pay returns how long to wait after n bytes sent at now.
func (p *pacer) pay(n uint64, now time.Time) time.Duration {
	rate := p.rate.Load()
	if rate == 0 {
		p.due = time.Time{}
		return 0
	}
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return max(0, p.due.Sub(now)-burst)
}

// wait waits for d, or until the instance leaves.
func (p *pacer) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.quit:
	}
}
