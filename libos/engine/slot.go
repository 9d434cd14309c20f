//go:build amd64

package engine

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// slot is the one place for an address space in this process.
//
// Lock order: a memory manager's locks, slot.mu, addressSpace.mu. Who holds
// slot.mu and an address space's mu may wait for that one's threads to leave
// the program, and for who holds its io: neither takes a lock.
type slot struct {
	mu sync.Mutex
	// +checklocks:mu
	owner *addressSpace
	// +checklocks:mu
	election election
	counters *counters
}

// userRange is all that a program can map.
var userRange = hostarch.AddrRange{Start: hostarch.PageSize, End: maxUserAddress}

// enter moves as into this process if it is worth it, and tells whether it is
// there. It is called at an address space's first Switch outside and then for
// every batch of them.
func (s *slot) enter(as *addressSpace) bool {
	pages := s.pages(as)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner == as {
		return true
	}
	now := situation{held: s.owner != nil, pages: pages}
	now.inside, now.outside = as.switches()
	if now.held {
		now.holder, _ = s.owner.switches()
		now.running = s.owner.running()
	}
	if !s.election.consider(&as.candidate, now) {
		return false
	}
	s.exchange(as)
	return true
}

// exchange makes as the owner, instead of the one before if there is one.
//
// +checklocks:s.mu
func (s *slot) exchange(as *addressSpace) {
	if s.owner != nil {
		began := time.Now()
		s.owner.moveOut()
		s.counters.moves.Add(1)
		s.counters.moving.Add(int64(time.Since(began)))
	}
	as.moveIn()
	if !as.wasHere {
		as.wasHere = true
		s.counters.here.Add(1)
	}
	s.owner = as
	s.election.elected()
}

// pages returns how many pages as and the slot's owner have to fault in again
// if as takes the slot. Memory managers are asked without s.mu, which comes
// after their own locks.
func (s *slot) pages(as *addressSpace) uint64 {
	s.mu.Lock()
	owner := s.owner
	s.mu.Unlock()
	size := uint64(0)
	if as.stubbed.Load() {
		size = as.size() // else it has nothing mapped
	}
	if owner != nil {
		size += owner.size()
	}
	return size / hostarch.PageSize
}

// leave unmaps as from this process, if it is there, and frees the slot.
//
// Preconditions: no thread executes in as.
func (s *slot) leave(as *addressSpace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != as {
		return
	}
	as.moveOut()
	s.owner = nil
	s.election.elected()
}

// moveIn lets threads of as execute in this process. Those that execute on the
// second platform fault at their next instruction, and come over.
func (as *addressSpace) moveIn() {
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.stub != nil {
		as.stub.Unmap(userRange.Start, uint64(userRange.Length()))
	}
	as.here.Store(true)
}

// moveOut ends executing as in this process, and unmaps it.
//
// A thread says where it is (tid) and then looks whether it may (stop); this
// tells it not to (stop) and then looks where it is (tid). So either the thread
// sees stop and does not enter, or it is seen here and waited for. It clears
// stop when its Switch ends, and its next looks at here, which is false since
// before stop was set: it goes elsewhere. See left and run_amd64.s.
//
// The address space's lock is held all the while: until all threads have left,
// the memory manager can neither unmap a page, which would be used again, nor
// map one at an address that is another program's a moment later.
func (as *addressSpace) moveOut() {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.here.Store(false)
	for c := range as.contexts {
		c.halt()
	}
	for c := range as.contexts {
		for c.executing() {
			<-as.left
		}
	}
	as.io.Lock()
	defer as.io.Unlock()
	unmapHere(userRange)
}

// join makes c one of the threads that execute in as.
func (as *addressSpace) join(c *switchContext) {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.contexts[c] = struct{}{}
}

// part undoes join. c must not execute.
func (as *addressSpace) part(c *switchContext) {
	as.mu.Lock()
	defer as.mu.Unlock()
	delete(as.contexts, c)
	as.inside, as.outside = as.inside+c.inside, as.outside+c.outside
	as.p.counters.inside.Add(c.inside)
	as.p.counters.outside.Add(c.outside)
	as.p.counters.calls.Add(c.calls)
	as.p.counters.traps.Add(c.traps)
	c.inside, c.outside, c.calls, c.traps = 0, 0, 0, 0
}

// running returns how many threads of as execute in this process.
func (as *addressSpace) running() (n uint64) {
	as.mu.Lock()
	defer as.mu.Unlock()
	for c := range as.contexts {
		if c.executing() {
			n++
		}
	}
	return n
}

// switches returns how many Switches the threads of as have made so far.
func (as *addressSpace) switches() (inside, outside uint64) {
	as.mu.Lock()
	defer as.mu.Unlock()
	inside, outside = as.inside, as.outside
	for c := range as.contexts {
		i, o := c.switches()
		inside, outside = inside+i, outside+o
	}
	return inside, outside
}

// noteLeft wakes moveOut: a thread that was told to stop has left the program.
func (as *addressSpace) noteLeft() {
	select {
	case as.left <- struct{}{}:
	default: // it has been woken already, and will look at all threads
	}
}
