package monitor

import (
	"slices"
	"sync"
)

// line is who waits for a queue, in the order in which they came. Its methods may be
// called from any goroutine.
type line struct {
	mu sync.Mutex
	// +checklocks:mu
	waiting []*place
}

// place is one in a line.
type place struct {
	l *line
	// turn gets a value when it may be worth trying: one is the first, and something
	// has changed since the last time.
	turn chan struct{}
}

// enter takes the last place; without queue, one that is nobody's but has its turn.
func (l *line) enter(queue bool) *place {
	p := &place{l: l, turn: make(chan struct{}, 1)}
	if !queue {
		p.turn <- struct{}{}
		return p
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, p)
	if l.waiting[0] == p {
		p.turn <- struct{}{}
	}
	return p
}

// leave gives the place up. Further calls do nothing.
func (p *place) leave() {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	at := slices.Index(p.l.waiting, p)
	if at < 0 {
		return
	}
	p.l.waiting = slices.Delete(p.l.waiting, at, at+1)
	if at == 0 {
		p.l.first()
	}
}

// changed says that there may be a queue.
func (l *line) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first()
}

// first tells the first that it is its turn.
//
// +checklocks:l.mu
func (l *line) first() {
	if len(l.waiting) == 0 {
		return
	}
	select {
	case l.waiting[0].turn <- struct{}{}:
	default:
	}
}
