package engine

import (
	"math"
	"time"
)

// Policy weighs what it costs to exchange the address space that is in this
// process for another against what that saves. It counts Switches, the only
// thing that is dearer on the second platform; computing costs the same there.
//
// It is the rule of the ski rental: an address space is moved in when staying
// outside has cost as much as moving does. Whatever programs do, all moves
// together cost no more than was lost by not moving, a share of what was saved
// by having moved, and what one stub for each address space would have cost.
type Policy struct {
	// Saving is what a Switch in this process is taken to save.
	Saving time.Duration
	// Stub is the cost of bringing an address space to the second platform
	// for the first time.
	Stub time.Duration
	// Move is the cost of an exchange that does not depend on memory: unmapping
	// both. Thread is added for each thread of the holder that executes and has
	// to be stopped.
	Move, Thread time.Duration
	// Page is the cost of faulting in again for each resident page of both.
	// Most are not touched again soon.
	Page time.Duration
}

// DefaultPolicy returns the policy for a second platform like systrap.
func DefaultPolicy() Policy {
	return Policy{
		Saving: 4 * time.Microsecond,
		Stub:   500 * time.Microsecond,
		Move:   50 * time.Microsecond,
		Thread: 50 * time.Microsecond,
		Page:   100 * time.Nanosecond,
	}
}

// insideShare is the part of what a Switch inside saves that may be spent on
// moving, and holderWeight how a holder's Switches count against a candidate's:
// of two that are equally busy, none is moved.
const (
	insideShare  = 4
	holderWeight = 1.5
)

// election is a Policy at work: the pure core of slot. One address space
// holds the slot for a term; others are candidates.
type election struct {
	Policy
	term uint64
}

// candidate is an address space's account.
type candidate struct {
	opened bool
	// credit is what it may spend on moving in: at first as much as its stub
	// costs, which it saves if it does not need one.
	credit time.Duration
	// inside is how many Switches inside have been credited.
	inside uint64
	// term is the one that the rest is about: the Switches of the candidate
	// outside, and of the holder, when they were compared last.
	term            uint64
	outside, holder uint64
}

// situation is what a decision depends on.
type situation struct {
	// inside and outside are the candidate's Switches so far.
	inside, outside uint64
	// held: another address space has the slot; holder are its Switches inside
	// so far, and running its threads that execute at this moment.
	held            bool
	holder, running uint64
	// pages is what has to be faulted in again: by the candidate and by the holder.
	pages uint64
}

// consider tells whether c is to have the slot now; it has then paid for it.
func (e *election) consider(c *candidate, s situation) bool {
	if !c.opened {
		*c = candidate{opened: true, credit: e.Stub, inside: s.inside, term: e.term, outside: s.outside, holder: s.holder}
	}
	if earned := min(e.Stub, saturate(c.credit, e.Saving/insideShare, since(c.inside, s.inside))); earned > c.credit {
		c.credit = earned
	}
	c.inside = s.inside
	if c.term != e.term { // what happened in other terms was compared with other holders
		c.term, c.outside, c.holder = e.term, s.outside, s.holder
	}
	lost := saturate(c.credit, e.Saving, since(c.outside, s.outside))
	c.credit = max(0, lost-saturate(0, time.Duration(float64(e.Saving)*holderWeight), since(c.holder, s.holder)))
	c.outside, c.holder = s.outside, s.holder

	cost := e.cost(s)
	if c.credit < cost {
		return false
	}
	c.credit -= cost
	return true
}

// cost is that of moving a candidate in.
func (p Policy) cost(s situation) time.Duration {
	pages := saturate(0, p.Page, s.pages)
	if !s.held {
		return pages
	}
	return saturate(saturate(pages, p.Thread, s.running), p.Move, 1)
}

// elected begins a new term: the slot has a new holder, or none.
func (e *election) elected() { e.term++ }

// since returns by how much a count has grown.
func since(before, now uint64) uint64 { return now - min(before, now) }

// saturate returns base+each*n, or the longest duration.
func saturate(base, each time.Duration, n uint64) time.Duration {
	if each > 0 && n > uint64((math.MaxInt64-base)/each) {
		return math.MaxInt64
	}
	return base + each*time.Duration(n)
}
