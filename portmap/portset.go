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

// choose returns a free port, each with the same probability.
func (c *chooser) choose(rng *rand.Rand) (uint16, bool) {
	n := uint32(c.high-c.low) + 1
	for range tries {
		p := c.low + uint16(rng.Uint32N(n))
		if c.free(p/64)>>(p%64)&1 != 0 {
			return p, true
		}
	}
	free := 0
	for w := c.low / 64; w <= c.high/64; w++ {
		free += bits.OnesCount64(c.free(w))
	}
	if free == 0 {
		return 0, false
	}
	return c.ranked(rng.IntN(free)), true
}

// ranked returns the free port of the given rank, from 0.
func (c *chooser) ranked(rank int) uint16 {
	for w := c.low / 64; ; w++ {
		set := c.free(w)
		if n := bits.OnesCount64(set); rank >= n {
			rank -= n
			continue
		}
		for ; rank > 0; rank-- {
			set &= set - 1
		}
		return w*64 + uint16(bits.TrailingZeros64(set))
	}
}

// free returns the free ports among 64w to 64w+63.
func (c *chooser) free(w uint16) uint64 {
	var used uint64
	for _, s := range c.spaces {
		if set := s.ports[c.proto].used; set != nil {
			used |= set[w]
		}
	}
	mask := ^uint64(0)
	if w == c.low/64 {
		mask &= ^uint64(0) << (c.low % 64)
	}
	if w == c.high/64 {
		mask &= ^uint64(0) >> (63 - c.high%64)
	}
	return mask &^ used
}
