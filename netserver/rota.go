package netserver

import (
	"slices"
	"sync/atomic"
)

// quantum is how many bytes a source of weight 1 may send in one turn: as many
// as the largest frame has, so that nobody waits more than a round or two.
const quantum = 64 << 10

// MaxWeight is the largest weight of an instance. A turn of that many quanta
// takes 50 ms at 10 Gbit/s.
const MaxWeight = 1000

// share is what a source may send through an outlet. It belongs to the source
// while that has the turn, else to the rota's owner.
type share struct {
	weight int64 // from 1 to MaxWeight
	credit int64 // bytes; negative after a frame that was larger
	turn   chan struct{}
	beats  *atomic.Uint64 // of the source's worker: waiting is no hang
}

func newShare(beats *atomic.Uint64) share {
	return share{weight: 1, turn: make(chan struct{}, 1), beats: beats}
}

// rota says whose turn it is at an outlet, by deficit round robin in bytes
// (Shreedhar and Varghese, SIGCOMM 1995), with frames charged after they have
// been sent: a source that overdraws waits for more rounds. Sources
// that always have something get bytes in proportion to their weights. While
// somebody waits, somebody has the turn.
type rota struct {
	waiting []*share // in the order of their turns
}

// join puts s behind all that wait.
func (r *rota) join(s *share) { r.waiting = append(r.waiting, s) }

// quit takes s out again. It returns false if s does not wait.
func (r *rota) quit(s *share) bool {
	i := slices.Index(r.waiting, s)
	if i >= 0 {
		r.waiting = slices.Delete(r.waiting, i, i+1)
	}
	return i >= 0
}

// next takes out whose turn it is; nil if nobody waits.
func (r *rota) next() *share {
	for len(r.waiting) > 0 {
		s := r.waiting[0]
		copy(r.waiting, r.waiting[1:])
		r.waiting = r.waiting[:len(r.waiting)-1]
		if s.begin() {
			return s
		}
		r.join(s)
	}
	return nil
}

// begin gives s what a round brings, and tells whether it is a turn.
func (s *share) begin() bool {
	s.credit = min(s.credit, s.round()) + s.round()
	return s.credit > 0
}

func (s *share) round() int64 { return s.weight * quantum }

// over tells whether s, which has the turn, has used it up. If nobody waits the
// next round is its own too.
func (r *rota) over(s *share) bool {
	for s.credit <= 0 {
		if len(r.waiting) > 0 {
			return true
		}
		s.begin()
	}
	return false
}

// end ends a turn. What a source does not use for want of frames is lost: it
// cannot save up for a burst.
func (s *share) end(more bool) {
	if !more {
		s.credit = min(s.credit, 0)
	}
}
