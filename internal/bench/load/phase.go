package load

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"junction/internal/bench/clients"
)

// Phase is what a load has seen between two marks.
type Phase struct {
	Requests uint64 // answered rightly
	Errors   uint64 // answered wrongly or not at all
	First    error  // the first of these
	Took     time.Duration
	// Gap is the longest time without an answer on any connection, also one that
	// began in the phase before.
	Gap time.Duration

	latencies []time.Duration // sorted
}

// Percentile returns the latency that p percent, from 0 to 100, of the answers
// did not exceed, and 0 if there were none.
func (p *Phase) Percentile(percent float64) time.Duration {
	n := len(p.latencies)
	if n == 0 {
		return 0
	}
	rank := int(math.Ceil(percent / 100 * float64(n))) // the nearest
	return p.latencies[min(max(rank, 1), n)-1]
}

// PerSecond returns the rate of right answers.
func (p *Phase) PerSecond() float64 {
	if p.Took <= 0 {
		return 0
	}
	return float64(p.Requests) / p.Took.Seconds()
}

// Join returns phases that followed each other as one.
func Join(phases ...Phase) (all Phase) {
	for _, p := range phases {
		all.Requests += p.Requests
		all.Errors += p.Errors
		all.Took += p.Took
		all.Gap = max(all.Gap, p.Gap)
		if all.First == nil {
			all.First = p.First
		}
		all.latencies = append(all.latencies, p.latencies...)
	}
	slices.Sort(all.latencies)
	return all
}

// Result returns the phase as other clients report what they have seen.
func (p *Phase) Result() clients.Result {
	const micro = float64(time.Microsecond)
	return clients.Result{
		Requests: p.Requests, Errors: p.Errors, PerSecond: p.PerSecond(),
		P50: float64(p.Percentile(50)) / micro, P99: float64(p.Percentile(99)) / micro,
	}
}

// phase is one under way.
type phase struct {
	Phase
	began, last time.Time
}

func newPhase() phase {
	const many = 1 << 16
	now := time.Now()
	return phase{Phase: Phase{latencies: make([]time.Duration, 0, many)}, began: now, last: now}
}

func (p *phase) answered(sent, now time.Time) {
	p.Requests++
	p.latencies = append(p.latencies, now.Sub(sent))
	p.Gap = max(p.Gap, now.Sub(p.last))
	p.last = now
}

func (p *phase) fail(err error) {
	if p.Errors++; p.First == nil {
		p.First = err
	}
}

// Mark ends the phase under way, begins the next one, and returns what was seen.
// An answer belongs to the phase in which it comes.
func (l *Load) Mark() Phase {
	next := newPhase()
	l.mu.Lock()
	p := l.phase
	now := time.Now()
	next.began, next.last = now, p.last
	l.phase = next
	l.mu.Unlock()
	p.Took = now.Sub(p.began)
	p.Gap = max(p.Gap, now.Sub(p.last))
	slices.Sort(p.latencies)
	return p.Phase
}

// Wait waits until the phase under way has had so many requests. One goroutine
// may wait at a time. Error: the load has ended, or ctx's.
func (l *Load) Wait(ctx context.Context, requests uint64) error {
	reached := make(chan struct{})
	l.mu.Lock()
	if l.phase.Requests+l.phase.Errors >= requests {
		l.mu.Unlock()
		return nil
	}
	l.want, l.reached = requests, reached
	l.mu.Unlock()
	return l.until(ctx, reached)
}

// For waits for a time in which the load goes on. Error: as Wait's.
func (l *Load) For(ctx context.Context, d time.Duration) error {
	passed := make(chan struct{})
	defer time.AfterFunc(d, func() { close(passed) }).Stop()
	return l.until(ctx, passed)
}

func (l *Load) until(ctx context.Context, passed <-chan struct{}) error {
	select {
	case <-passed:
		return nil
	case <-l.done:
		return fmt.Errorf("the load has ended: %w", l.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}
