//go:build amd64

package engine

import (
	"sync"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// slot is the one place for an address space in this process.
type slot struct {
	mu sync.Mutex
	// +checklocks:mu
	owner *addressSpace
}

// userRange is all that a program can map.
var userRange = hostarch.AddrRange{Start: hostarch.PageSize, End: maxUserAddress}

// enter makes as the owner if there is none, and tells whether it is.
func (s *slot) enter(as *addressSpace) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != nil {
		return s.owner == as
	}
	s.owner = as
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.stub != nil {
		as.stub.Unmap(userRange.Start, uint64(userRange.Length()))
	}
	as.here.Store(true)
	return true
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
	as.mu.Lock()
	defer as.mu.Unlock()
	unmapHere(userRange)
	as.here.Store(false)
	s.owner = nil
}
