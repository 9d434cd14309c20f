package kthreads

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// DefaultQuantum is the time slice while others wait.
const DefaultQuantum = 100 * time.Microsecond

// Options says how programs share the processors.
type Options struct {
	// Tokens is how many threads may execute their programs at once, at least 1.
	Tokens int
	// Quantum is how long one keeps its token while others wait; 0 means until
	// it makes a system call or faults.
	Quantum time.Duration
}

// Stats is a snapshot of what sharing the processors took.
type Stats struct {
	// Tokens is how many threads may execute at once.
	Tokens int `json:"tokens"`
	// Waits is how often a thread had to wait for a token.
	Waits uint64 `json:"waits"`
	// Yields is how often a thread was made to leave its program for another
	// because its time slice was over.
	Yields uint64 `json:"yields"`
}

// Platform is a platform whose threads need a token to execute. Its methods may
// be called at any time.
type Platform struct {
	platform.Platform
	began time.Time

	mu sync.Mutex
	// +checklocks:mu
	q queue[*thread]
	// watching: a goroutine watches the time slices. +checklocks:mu
	watching bool
	// observer is never nil. +checklocks:mu
	observer Observer
	// unsettled: threads hold a token too many since SetTokens. +checklocks:mu
	unsettled bool
	// parked: the next to take a token is told of. +checklocks:mu
	parked bool
	// taken is how often a token was taken. +checklocks:mu
	taken uint64
	// contended: threads wait, or hold a token too many. Written with mu held.
	contended atomic.Bool
	// calm holds a token when no time slice runs any more.
	calm chan struct{}
}

// Limit returns inner with a bound on the threads that execute at once.
func Limit(inner platform.Platform, o Options) *Platform {
	p := &Platform{Platform: inner, began: time.Now(), calm: make(chan struct{}, 1), observer: nobody{}}
	p.q = queue[*thread]{tokens: o.Tokens, quantum: o.Quantum, do: byState{}}
	return p
}

// Inner returns the platform that executes programs.
func (p *Platform) Inner() platform.Platform { return p.Platform }

// NewContext implements platform.Platform.NewContext.
func (p *Platform) NewContext(ctx context.Context) platform.Context {
	inner := p.Platform.NewContext(ctx)
	f, _ := inner.(forgetter)
	return &thread{
		Context:     inner,
		forgetter:   f,
		p:           p,
		granted:     make(chan struct{}, 1),
		interrupted: make(chan struct{}, 1),
	}
}

// Stats returns what sharing the processors has taken so far.
func (p *Platform) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.q.stats
	s.Tokens = p.q.tokens
	return s
}

// now is the queue's clock.
func (p *Platform) now() time.Duration { return time.Since(p.began) }

// takeFree gives t a token that nobody uses, if nobody waits for one.
func (p *Platform) takeFree(t *thread, now time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake()
	free := p.q.takeFree(t, now)
	p.settle()
	if !free {
		return false
	}
	t.sliceEnd = now + p.q.quantum
	t.state.Store(running)
	return true
}

// with calls f with the queue, and sees to what follows.
func (p *Platform) with(f func(*queue[*thread])) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.q)
	p.settle()
	p.contended.Store(p.q.contended())
	_, due := p.q.due()
	switch {
	case due && !p.watching:
		p.watching = true
		go p.watch()
	case !due && p.watching:
		select {
		case p.calm <- struct{}{}:
		default:
		}
	}
}

// watch ends time slices while threads wait for tokens.
func (p *Platform) watch() {
	for {
		p.mu.Lock()
		at, ok := p.q.due()
		if !ok {
			p.watching = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		p.pause(at - p.now())
		p.with(func(q *queue[*thread]) { q.press(p.now()) })
	}
}

// pause blocks for d, or less. The runtime's timers are a millisecond late when
// processors are idle, ten times the usual quantum: they are for most of a long
// time only.
func (p *Platform) pause(d time.Duration) {
	const late = 2 * time.Millisecond
	switch {
	case d > 2*late:
		t := time.NewTimer(d - late)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.calm:
		}
	case d > 0:
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // a signal may end it early
	}
}
