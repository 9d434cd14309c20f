package afxdp

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A queue whose user was killed still has, in its rings, all that the kernel
// knows: recover finds out who owns which chunk. A chunk in none of the rings
// was either its user's, or is with the kernel, which has taken it from one ring
// and not yet put it into the other. These are in limbo until the kernel has put
// everything that it had at that moment where it belongs:
//
//   - A frame received: the kernel publishes all that it has of a queue at once,
//     so the first change of the receive ring's producer index ends limbo.
//   - A frame sent: each is completed once, so it is known how many are still to
//     be completed, and limbo ends when that many of its chunks have been.
//
// recover works on the assumption that the user before kept to the rules up to
// its end. If it did not, frames may be damaged, and no more.

// recover takes up a queue at the state in which its user left it; a new one's
// chunks are all ours.
func (q *Queue) recover() error {
	if err := q.r.recover(); err != nil {
		return fmt.Errorf("queue %d: %w", q.id, err)
	}
	// Invalid descriptors are never completed.
	s, err := statistics(q.fd)
	if err != nil {
		return fmt.Errorf("queue %d: statistics: %w", q.id, err)
	}
	if err := q.t.recover(uint32(s.Tx_invalid_descs)); err != nil {
		return fmt.Errorf("queue %d: %w", q.id, err)
	}
	if q.r.limbo != nil && q.r.fill.own == q.r.fill.peer {
		// The kernel has no chunk that it could show a change with.
		AwaitKernel()
		q.r.ring.peer = atomic.LoadUint32(q.r.ring.producer)
		q.r.endLimbo()
	}
	if q.t.unsent() > 0 {
		q.retry = q.kick() != nil // what the user before published
	}
	q.r.release()
	return nil
}

// AwaitKernel waits until every packet that the kernel was handling has been
// dealt with: it does so in sections that a grace period of RCU ends, as
// membarrier(2) waits for one. It takes some 10 ms.
func AwaitKernel() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
}

// resume sets own and peer indices to what is in shared memory, and tells
// whether a user of this package can have left them so.
func (r *ring[T]) resume(produces bool) bool {
	// The consumer's index first: what moves on meanwhile is then seen twice, not
	// never.
	consumer := atomic.LoadUint32(r.consumer)
	producer := atomic.LoadUint32(r.producer)
	r.own, r.peer = consumer, producer
	if produces {
		r.own, r.peer = producer, consumer
	}
	return producer-consumer <= r.size
}

// between calls f with each entry from index a to before b.
func (r *ring[T]) between(a, b uint32, f func(T)) {
	for ; a != b; a++ {
		f(*r.at(a))
	}
}

// own marks the chunk at addr as the kernel's; what is no chunk's is ignored.
func (c *chunks) own(addr uint64) {
	if i := addr>>c.shift - c.first; i < uint64(len(c.kernel)) {
		c.kernel[i] = true
	}
}

// recover sorts the chunks of the receive side.
func (r *receiver) recover() error {
	// The kernel moves chunks from the fill ring to the receive ring.
	if !r.fill.resume(true) || !r.ring.resume(false) {
		return fmt.Errorf("%w: its user left the receive side's rings in disorder", ErrGeometry)
	}
	r.fill.between(r.fill.peer, r.fill.own, r.chunks.own)
	r.ring.between(r.ring.own, r.ring.peer, func(d unix.XDPDesc) { r.chunks.own(d.Addr) })
	fresh := r.fill.own == 0 && r.fill.peer == 0
	for i, kernels := range r.chunks.kernel {
		switch {
		case kernels:
		case fresh:
			r.pending = append(r.pending, uint32(i))
		default:
			r.quarantine(i)
		}
	}
	r.limboFrom = r.ring.peer
	return nil
}

func (r *receiver) quarantine(i int) {
	if r.limbo == nil {
		r.limbo = make([]bool, len(r.chunks.kernel))
	}
	r.limbo[i] = true
	r.chunks.give(uint32(i)) // it may come through the ring
}

// endLimbo is called with all descriptors from limboFrom on still in the ring,
// once these include all that the kernel had when the queue was taken up.
func (r *receiver) endLimbo() {
	r.ring.between(r.limboFrom, r.ring.peer, func(d unix.XDPDesc) {
		if i := d.Addr >> r.chunks.shift; i < uint64(len(r.limbo)) {
			r.limbo[i] = false
		}
	})
	for i, ours := range r.limbo {
		if ours {
			r.chunks.kernel[i] = false
			r.pending = append(r.pending, uint32(i))
		}
	}
	r.limbo = nil
}

// recover sorts the chunks of the transmit side. invalid is how many descriptors
// the kernel has refused so far.
func (t *transmitter) recover(invalid uint32) error {
	// The kernel moves chunks from the transmit ring to the completion ring.
	if !t.completion.resume(false) || !t.ring.resume(true) {
		return fmt.Errorf("%w: its user left the transmit side's rings in disorder", ErrGeometry)
	}
	t.ring.between(t.ring.peer, t.ring.own, func(d unix.XDPDesc) { t.chunks.own(d.Addr) })
	t.completion.between(t.completion.own, t.completion.peer, t.chunks.own)
	t.limboLeft = t.ring.peer - invalid - t.completion.peer
	inLimbo := uint32(0)
	for i, kernels := range t.chunks.kernel {
		switch {
		case kernels:
		case t.limboLeft == 0:
			t.free = append(t.free, uint32(i))
		default:
			inLimbo++
			t.quarantine(i)
		}
	}
	if t.limboLeft > inLimbo {
		return fmt.Errorf("%w: %d frames sent are not accounted for", ErrGeometry, t.limboLeft-inLimbo)
	}
	return nil
}

func (t *transmitter) quarantine(i int) {
	if t.limbo == nil {
		t.limbo = make([]bool, len(t.chunks.kernel))
	}
	t.limbo[i] = true
	t.chunks.give(uint32(i))
}

// endLimbo is called when the kernel has completed all that it had in limbo: the
// rest was its user's.
func (t *transmitter) endLimbo() {
	for i, ours := range t.limbo {
		if ours {
			t.chunks.kernel[i] = false
			t.free = append(t.free, uint32(i))
		}
	}
	t.limbo = nil
}
