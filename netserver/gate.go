package netserver

import (
	"sync"
	"time"
)

// gate lets one instance at a time send through an outlet, in the order of its
// rota.
type gate struct {
	mu sync.Mutex
	// +checklocks:mu
	rota rota
	// +checklocks:mu
	taken bool
}

// enter waits for a turn, with timer until a deadline unless that is zero. It
// returns false when that has come. A source must not have another gate's turn.
func (g *gate) enter(s *share, until time.Time, timer *time.Timer) bool {
	g.mu.Lock()
	g.rota.join(s)
	if !g.taken {
		g.taken = true
		g.pass()
	}
	g.mu.Unlock()
	if until.IsZero() {
		<-s.turn
		return true
	}
	select {
	case <-s.turn:
		return true
	default:
	}
	timer.Reset(time.Until(until))
	defer timer.Stop()
	select {
	case <-s.turn:
		return true
	case <-timer.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rota.quit(s) {
		return false
	}
	<-s.turn // it has come meanwhile
	return true
}

// pass gives the turn to the next.
//
// +checklocks:g.mu
func (g *gate) pass() {
	next := g.rota.next()
	g.taken = next != nil
	if next != nil {
		next.turn <- struct{}{}
	}
}

// leave ends a turn. more says that the source has further frames.
func (g *gate) leave(s *share, more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.end(more)
	g.pass()
	g.alive()
}

// over tells whether a turn is used up.
func (g *gate) over(s *share) bool {
	if s.credit > 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rota.over(s)
}

// progress says that the outlet is slow, but does take frames.
func (g *gate) progress(s *share) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.beats.Add(2)
	g.alive()
}

// alive says that who waits here does not hang.
//
// +checklocks:g.mu
func (g *gate) alive() {
	for _, s := range g.rota.waiting {
		s.beats.Add(2)
	}
}
