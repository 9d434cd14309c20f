package portmap

import (
	"math/bits"
	"math/rand/v2"

	"junction/portmap/table"
)

// portSet is the owned ports of one address and protocol.
type portSet struct {
	used  *[1024]uint64 // bit per port
	ports map[uint16]*port
}

func (s *portSet) get(number uint16) *port { return s.ports[number] }

func (s *portSet) add(p *port) {
	if s.used == nil {
		s.used, s.ports = new([1024]uint64), make(map[uint16]*port)
	}
	s.used[p.number/64] |= 1 << (p.number % 64)
	s.ports[p.number] = p
}

func (s *portSet) remove(p *port) {
	s.used[p.number/64] &^= 1 << (p.number % 64)
	delete(s.ports, p.number)
}

// chooser chooses among the ports of a range that are free on all of some addresses.
type chooser struct {
	low, high uint16
	spaces    []*space
	proto     table.Proto
}

// tries of a random port come first: they find one at once unless nearly all
// are taken, and like the choice by rank they prefer none of the free ports.
const tries = 8

// choose returns a free port, each with the same probability, in a time that
// is bounded by the size of the range, however few are free.
func (c *chooser) choose(rng *rand.Rand) (uint16, bool) {
	n := uint32(c.high-c.low) + 1
	for range tries {
		if p := c.low + uint16(rng.Uint32N(n)); c.isFree(p) {
			return p, true
		}
	}
	var set [1024]uint64
	free := c.free(&set)
	if free == 0 {
		return 0, false
	}
	first := c.low / 64
	return first*64 + ranked(set[first:], rng.IntN(free)), true
}

func (c *chooser) isFree(p uint16) bool {
	for _, s := range c.spaces {
		if used := s.ports[c.proto].used; used != nil && used[p/64]>>(p%64)&1 != 0 {
			return false
		}
	}
	return true
}

// free makes set, which is empty, the free ports and returns their number.
func (c *chooser) free(set *[1024]uint64) int {
	first, last := int(c.low/64), int(c.high/64)
	for i := first; i <= last; i++ {
		set[i] = ^uint64(0)
	}
	set[first] &= ^uint64(0) << (c.low % 64)
	set[last] &= ^uint64(0) >> (63 - c.high%64)
	for _, s := range c.spaces {
		if used := s.ports[c.proto].used; used != nil {
			for i := first; i <= last; i++ {
				set[i] &^= used[i]
			}
		}
	}
	n := 0
	for i := first; i <= last; i++ {
		n += bits.OnesCount64(set[i])
	}
	return n
}

// ranked returns the set's member of a rank, from 0, which it has.
func ranked(set []uint64, rank int) uint16 {
	for i, w := range set {
		n := bits.OnesCount64(w)
		if rank >= n {
			rank -= n
			continue
		}
		for ; rank > 0; rank-- {
			w &= w - 1
		}
		return uint16(i*64 + bits.TrailingZeros64(w))
	}
	return 0
}
