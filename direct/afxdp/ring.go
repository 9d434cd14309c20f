package afxdp

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// cursor is one side's private view of a single-producer single-consumer ring:
// its own index, which the other side only reads, and the other side's index
// as last read. Indices run freely and wrap at 2^32; size is a power of two.
type cursor struct {
	own, peer, size uint32
}

// ready returns how many entries the consumer may take, given a fresh reading
// of the producer's index. ok is false, and the reading ignored, if no honest
// producer can have written it.
func (c *cursor) ready(producer uint32) (n uint32, ok bool) {
	n = producer - c.own
	if n > c.size || n < c.peer-c.own {
		return c.peer - c.own, false
	}
	c.peer = producer
	return n, true
}

// room returns how many entries the producer may write, given a fresh reading
// of the consumer's index. ok is false, and the reading ignored, if no honest
// consumer can have written it.
func (c *cursor) room(consumer uint32) (n uint32, ok bool) {
	used := c.own - consumer
	if used > c.size || used > c.own-c.peer {
		return c.size - (c.own - c.peer), false
	}
	c.peer = consumer
	return c.size - used, true
}

// shared is the part of a ring that both sides see.
type shared struct {
	producer, consumer, flags *uint32
}

func (s shared) wantsWakeup() bool {
	return atomic.LoadUint32(s.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}

// ring is a ring of entries of type T (unix.XDPDesc or uint64).
type ring[T any] struct {
	cursor
	shared
	entries []T
	corrupt uint64 // readings that were ignored
}

func newRing[T any](s shared, entries []T) ring[T] {
	return ring[T]{cursor: cursor{size: uint32(len(entries))}, shared: s, entries: entries}
}

// at returns the entry with index i.
func (r *ring[T]) at(i uint32) *T { return &r.entries[i&uint32(len(r.entries)-1)] }

// waiting returns how many entries the consumer may take. It looks at the
// shared index only if fewer than want are known of.
func (r *ring[T]) waiting(want uint32) uint32 {
	if n := r.peer - r.own; n >= want {
		return n
	}
	n, ok := r.ready(atomic.LoadUint32(r.producer))
	if !ok {
		r.corrupt++
	}
	return n
}

// vacant is waiting for the producer.
func (r *ring[T]) vacant(want uint32) uint32 {
	if n := r.size - (r.own - r.peer); n >= want {
		return n
	}
	n, ok := r.room(atomic.LoadUint32(r.consumer))
	if !ok {
		r.corrupt++
	}
	return n
}

// consumed publishes that the consumer has taken all entries before own.
func (r *ring[T]) consumed() { atomic.StoreUint32(r.consumer, r.own) }

// produced publishes all entries before own to the consumer.
func (r *ring[T]) produced() { atomic.StoreUint32(r.producer, r.own) }
