package kthreads

import "time"

// Whoever gives processors to several instances bounds how many threads of this
// one execute at once, and needs to know how many it could use.

// Observer is told what changes the demand for processors. It is called with the
// platform's lock held: it must not block or call the Platform.
type Observer interface {
	// Waiting: a thread waits for a token.
	Waiting()
	// Settled: no more threads hold a token than SetTokens said.
	Settled()
	// Woken: after Park, a thread wants to execute.
	Woken()
}

// nobody is the Observer when nobody gives and takes processors.
type nobody struct{}

func (nobody) Waiting() {}
func (nobody) Settled() {}
func (nobody) Woken()   {}

// Demand is a snapshot of what threads want.
type Demand struct {
	// Executing is how many hold a token and do not sleep.
	Executing int
	// Waiting is how many wait for a token, the first of them for Longest.
	Waiting int
	Longest time.Duration
	// Turns changes whenever a thread has executed.
	Turns uint64
}

// Observe has o told from now on; nil: nobody.
func (p *Platform) Observe(o Observer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o == nil {
		o, p.parked = nobody{}, false
	}
	p.observer = o
}

// SetTokens changes how many threads may execute at once; with 0 none does, until
// there are more. Threads in excess leave their programs at once, but are not
// waited for: an Observer is told.
func (p *Platform) SetTokens(n int) {
	p.with(func(q *queue[*thread]) {
		p.contended.Store(true) // as in thread.acquire
		p.unsettled = true
		q.setTokens(n, p.now())
	})
}

// Demand returns what threads want now. It looks at each that has a token.
func (p *Platform) Demand() Demand {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := Demand{Waiting: len(p.q.waiters), Turns: p.taken}
	for _, h := range p.q.holders {
		if h.thread.state.Load() != asleep {
			d.Executing++
		}
		d.Turns += h.thread.sleeps.Load()
	}
	if d.Waiting > 0 {
		d.Longest = p.now() - p.q.waiters[0].since
	}
	return d
}

// Park takes the tokens of all threads, and has the Observer told when the next
// wants one. It returns false, and does nothing, unless all sleep.
func (p *Platform) Park() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parked || len(p.q.waiters) > 0 {
		return p.parked
	}
	// Who wakes meanwhile keeps its token.
	for p.q.reclaimAny() {
	}
	p.parked = len(p.q.holders) == 0
	return p.parked
}

// wake ends parking.
// +checklocks:p.mu
func (p *Platform) wake() {
	p.taken++
	if p.parked {
		p.parked = false
		p.observer.Woken()
	}
}

// settle tells when SetTokens is complied with.
// +checklocks:p.mu
func (p *Platform) settle() {
	if p.unsettled && p.q.excess() == 0 {
		p.unsettled = false
		p.observer.Settled()
	}
}
