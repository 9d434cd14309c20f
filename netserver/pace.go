package netserver

import (
	"sync/atomic"
	"time"
)

// pacer holds an instance's sending to a rate: after a batch its worker waits
// until the batch's bytes have become due. Nothing is dropped: the ring fills, and
// the instance waits. So it does for what it makes the server do for nothing, lest
// that take processor time from others.
type pacer struct {
	rate  atomic.Uint64 // bytes per second; 0: no limit
	sent  debt          // for bytes
	fined debt          // for nothing
	total atomic.Int64  // of fines, in nanoseconds
	quit  chan struct{} // closed when the instance leaves
}

// debt is paid by waiting.
type debt struct {
	due time.Time // when it is paid
}

// add adds a cost and returns how long it takes from now until all is paid.
func (d *debt) add(cost time.Duration, now time.Time) time.Duration {
	if d.due.Before(now) {
		d.due = now
	}
	d.due = d.due.Add(cost)
	return d.due.Sub(now)
}

// Fines: some fifty times what the server spends, so that who does nothing else
// gets it to use a fiftieth of a processor. What an honest instance does of this
// now and then is within a burst.
const (
	// droppedFine is for a frame that went nowhere.
	droppedFine = 25 * time.Microsecond
	// unheardFine is for a doorbell that was rung, again, when there was nothing.
	unheardFine = 250 * time.Microsecond
)

// fine returns how long to wait after n offences at now: seldom, and then for all.
func (p *pacer) fine(n uint64, each time.Duration, now time.Time) time.Duration {
	if n == 0 {
		return 0
	}
	cost := time.Duration(n) * each
	p.total.Add(int64(cost))
	if d := p.fined.add(cost, now); d > burst {
		return d
	}
	return 0
}

// burst is for how long an instance that was silent may send at any rate, lest a
// timer run for each batch.
const burst = 5 * time.Millisecond

// pay returns how long to wait after n bytes sent at now.
func (p *pacer) pay(n uint64, now time.Time) time.Duration {
	rate := p.rate.Load()
	if rate == 0 {
		p.sent = debt{}
		return 0
	}
	return max(0, p.sent.add(time.Duration(float64(n)/float64(rate)*float64(time.Second)), now)-burst)
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
