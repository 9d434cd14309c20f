package modeswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Drainer is a Queue that can tell whether what was flushed has left it. A
// Queue that is none is taken to pass frames on at once, as a TAP does. The
// methods belong to the transmit side.
type Drainer interface {
	// Drained tells whether all that was flushed has left the queue.
	Drained() (bool, error)
	// DrainWait blocks until more of it has left, or Wake is called.
	DrainWait() error
}

// ErrNotDrained is returned, wrapped, by Move when the old path did not send
// what it had in time: packets leave by it as before.
var ErrNotDrained = errors.New("the old path has not sent what it has")

// Moved says how a Move went.
type Moved struct {
	// Held is for how long packets were kept back, Packets how many.
	Held    time.Duration
	Packets int
}

// turnTime is how long Move looks for a moment to turn in without holding
// packets. They flow all the time, so that it is in nobody's way; with bulk data both
// ways every fourth Move needs more than 50 ms.
const turnTime = 250 * time.Millisecond

// Move makes packets leave by another path, so that none overtakes another: at
// a moment when the old one has sent all that it had, and if there is none for a
// while, it makes one: further packets are held until the old path has sent what
// it has. If ctx ends before, they go on leaving by the old path; with force they
// leave by the new one even then. An old path that is broken has nothing more to
// wait for.
func (e *Endpoint) Move(ctx context.Context, to *Path, force bool) (m Moved, err error) {
	e.moving.Lock()
	defer e.moving.Unlock()
	from := e.egress.Load()
	if from == to {
		return m, nil
	}
	if !force && e.awaitTurn(ctx, from, to) {
		return m, nil
	}
	begun := time.Now()
	e.egress.Store(nil)
	from.settle()
	e.first.settle() // for what from does not take
	err = from.drain(ctx)
	if force {
		err = nil
	}
	if err != nil {
		to = from
	}
	m.Packets = e.held.give(e, to)
	m.Held = time.Since(begun)
	return m, err
}

// drain waits until all queues have sent what they have.
func (p *Path) drain(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		for _, q := range p.queues {
			q.Wake()
		}
	})
	defer stop()
	for i, q := range p.queues {
		if err := q.drained(ctx); err != nil {
			return fmt.Errorf("%w: queue %d: %w", ErrNotDrained, i, err)
		}
	}
	return nil
}

// drained waits until the queue has sent what it has, or is broken.
func (q *queue) drained(ctx context.Context) error {
	for {
		q.txMu.Lock()
		if q.dirty.Load() && !q.waiting && !q.closed && q.flush() != nil {
			q.wait()
		}
		waiting, emptied := q.waiting, q.emptied
		q.txMu.Unlock()
		if !waiting {
			break
		}
		select {
		case <-emptied:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d, ok := q.Queue.(Drainer)
	if !ok {
		return nil
	}
	return q.path.awaitDrained(ctx, d)
}

func (p *Path) awaitDrained(ctx context.Context, d Drainer) error {
	for {
		done, err := d.Drained()
		switch {
		case done || err != nil && !errors.Is(err, net.ErrClosed):
			return nil // a broken queue sends no more
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case p.stopped.Load():
			return net.ErrClosed
		}
		if err := d.DrainWait(); err != nil {
			return nil // broken: it sends no more
		}
	}
}
