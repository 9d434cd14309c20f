package netserver

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"junction/ipc"
)

// barrier waits for a worker of the uplink.
type barrier struct {
	next   *barrier
	passed chan struct{} // closed when it is passed
}

// barriers are those that a worker has still to pass.
type barriers struct {
	asked   atomic.Pointer[barrier] // the last one; who waits adds, the worker takes
	present *barrier
	rounds  int // since present was taken
}

// emptyRounds is how many batches a queue may hold: after as many, all that was
// in it before has gone. It is twice what an AF_XDP ring holds.
const emptyRounds = 2 * 2048 / batchFrames

// ask adds a barrier.
func (b *barriers) ask(to *barrier) {
	for {
		to.next = b.asked.Load()
		if b.asked.CompareAndSwap(to.next, to) {
			return
		}
	}
}

// round notes that a batch of n frames has been passed on. When the queue has
// been empty since a barrier was asked for, or is known to have been emptied of
// what it held then, that is passed.
func (b *barriers) round(n int) {
	if b.present == nil {
		if b.asked.Load() == nil {
			return
		}
		b.present, b.rounds = b.asked.Swap(nil), 0
		if n == 0 {
			return // it was empty before; look once more
		}
	}
	if b.rounds++; n > 0 && b.rounds <= emptyRounds {
		return
	}
	for p := b.present; p != nil; p = p.next {
		close(p.passed)
	}
	b.present = nil
}

// due tells whether a barrier waits, so that the worker must not sleep.
func (b *barriers) due() bool { return b.present != nil || b.asked.Load() != nil }

// Mark puts a frame into an instance's ring, behind all frames that had come
// from the wire when it was called. Errors: ErrPort, ctx's.
func (s *Server) Mark(ctx context.Context, id uint32, frame []byte) error {
	waits := make([]*barrier, len(s.workers))
	for i, w := range s.workers {
		waits[i] = &barrier{passed: make(chan struct{})}
		w.barriers.ask(waits[i])
		s.opts.Uplink.Queues()[i].Wake()
	}
	for _, b := range waits {
		select {
		case <-b.passed:
		case <-ctx.Done():
			return fmt.Errorf("mark for instance %d: the uplink's queue is not passed on: %w", id, ctx.Err())
		}
	}
	return s.mark(ctx, id, frame)
}

// markRetry is how long a ring is left alone that has no room for a mark. To wait
// for room would keep others from the ring.
const markRetry = time.Millisecond

func (s *Server) mark(ctx context.Context, id uint32, frame []byte) error {
	for {
		p := s.ports.Load().byID[id]
		if p == nil {
			return fmt.Errorf("mark for instance %d: %w", id, ErrPort)
		}
		err := p.out.mark(frame)
		if err == nil {
			s.mu.Lock()
			s.gone.Made++
			s.gone.Out++
			s.mu.Unlock()
			return nil
		}
		if !errors.Is(err, ipc.ErrFull) {
			return fmt.Errorf("mark for instance %d: %w", id, err)
		}
		select {
		case <-time.After(markRetry):
		case <-ctx.Done():
			return fmt.Errorf("mark for instance %d: its ring is full: %w", id, ctx.Err())
		}
	}
}

// mark puts one frame without header into a ring.
func (o *outlet) mark(frame []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var hdr [ipc.VnetHdrLen]byte
	err := o.q.Transmit(&hdr, [][]byte{frame})
	if ferr := o.q.Flush(); err == nil {
		err = ferr
	}
	return err
}
