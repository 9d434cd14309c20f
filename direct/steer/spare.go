package steer

import (
	"context"
	"sync"
	"time"

	"junction/direct/afxdp"
)

// spare is memory for the next VF. To get it keeps a processor busy for longer than all
// else of a switch does, and whoever shares the processor with it waits: so it is got
// after the VF before, when nobody waits for it, piece by piece. An uplink that has never
// had a VF has none. The zero value is ready.
type spare struct {
	tasks sync.WaitGroup

	mu sync.Mutex
	// +checklocks:mu
	memory *afxdp.Memory // nil: there is none
	// +checklocks:mu
	stop context.CancelFunc // of who gets some; nil: nobody does
	// +checklocks:mu
	closed bool
}

// A piece takes half a millisecond, so others have the processor for most of the
// time. It begins when the switch that has taken the last memory should be over.
const (
	beforeSpare   = 30 * time.Millisecond
	betweenPieces = 4 * time.Millisecond
)

// take returns the memory, which is the caller's, nil if there is none.
func (s *spare) take() *afxdp.Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.memory
	s.memory = nil
	return m
}

// refill begins to get memory for a VF of that MTU, unless there is some.
func (s *spare) refill(mtu int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.stop != nil || s.memory != nil {
		return
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.tasks.Go(func() { s.get(ctx, mtu) })
}

func (s *spare) get(ctx context.Context, mtu int) {
	wait := beforeSpare
	m, err := afxdp.NewMemory(mtu, rxMemory, func() error {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		wait = betweenPieces
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	s.stop = nil
	switch {
	case err != nil: // the next VF gets its own, and tells what is wrong if it cannot
	case s.closed:
		_ = m.Close()
	default:
		s.memory = m
	}
}

// close gives the memory up.
func (s *spare) close() {
	s.mu.Lock()
	s.closed = true
	if s.stop != nil {
		s.stop()
	}
	s.mu.Unlock()
	s.tasks.Wait()
	if m := s.take(); m != nil {
		_ = m.Close()
	}
}
