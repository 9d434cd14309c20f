package monitor

import "time"

// What a back-off goes by.
const (
	// livedWell is how long servers have to live, on average, to be replaced at once.
	livedWell = 100 * time.Millisecond
	// spareLives is how many servers may end at once before that average counts.
	spareLives   = 5
	firstBackoff = 10 * time.Millisecond
	mostBackoff  = 2 * time.Second
	// mostServed is the most after a server that was ready: it served, and who
	// kills it often must not keep the next one from serving as much.
	mostServed = 2 * firstBackoff
)

// backoff says how long to wait before a server is replaced. Each end costs
// livedWell, what it has lived is credit. While that lasts, the next one comes at
// once, even if somebody kills a few in a row; each end without doubles the wait,
// up to a limit, without end. The limit is lower after one that was ready.
type backoff struct {
	credit, wait time.Duration
}

func newBackoff() backoff { return backoff{credit: spareLives * livedWell} }

// after returns how long to wait after the end of a server that has lived so
// long, and was ready or not.
func (b *backoff) after(lived time.Duration, ready bool) time.Duration {
	b.credit = min(b.credit+lived, spareLives*livedWell) - livedWell
	if b.credit >= 0 {
		b.wait = 0
		return 0
	}
	b.credit = 0
	most := mostBackoff
	if ready {
		most = mostServed
	}
	b.wait = min(max(2*b.wait, firstBackoff), most)
	return b.wait
}
