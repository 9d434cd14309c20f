package hostile

import "encoding/binary"

// Extension headers (RFC 8200, section 4) and NDP types (RFC 4861).
const (
	extHopByHop = 0
	extRouting  = 43
	extFragment = 44
	extDest     = 60
	extNone     = 59

	ndpRouterAdvert   = 134
	ndpNeighborAsk    = 135
	ndpNeighborAdvert = 136
	ndpRedirect       = 137
)

func (g *Generator) ipv6Header() []byte {
	p := g.ipv6(protoUDP, g.udp(g.bytes(200)))
	switch g.rand.IntN(6) {
	case 0:
		p[0] = byte(g.rand.Uint32()) // version
	case 1:
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)+g.rand.IntN(60000))) // longer than the frame
	case 2:
		binary.BigEndian.PutUint16(p[4:], uint16(g.rand.IntN(8))) // 0 would be a jumbogram
	case 3:
		p[7] = 0 // hop limit
	case 4:
		copy(p[8:24], append(make([]byte, 15), byte(g.rand.IntN(2)))) // from :: or ::1
	default:
		p[6] = byte(g.rand.Uint32()) // next header
	}
	return g.ether(etherIPv6, p)
}

// ipv6Chain makes a chain of extension headers as long as the frame allows, or
// one whose last header is cut off or says it is longer than the frame. Most
// repeat what may come once.
func (g *Generator) ipv6Chain() []byte {
	kinds := []byte{extHopByHop, extRouting, extFragment, extDest}
	count := []int{1, 2 + g.rand.IntN(10), 180}[g.rand.IntN(3)]
	chain := make([]byte, 0, 8*count)
	first := kinds[g.rand.IntN(len(kinds))]
	for i := range count {
		next := kinds[g.rand.IntN(len(kinds))]
		if i == count-1 {
			next = []byte{protoTCP, protoUDP, extNone, extHopByHop, byte(g.rand.Uint32())}[g.rand.IntN(5)]
		}
		chain = append(chain, next, 0)
		chain = append(chain, g.ipv6Options()...)
	}
	if g.odds(3) {
		chain[len(chain)-7] = byte(g.rand.Uint32()) // the last one's length
	}
	if g.odds(3) {
		chain = chain[:g.rand.IntN(len(chain)+1)]
	}
	return g.ether(etherIPv6, g.ipv6(first, chain))
}

// ipv6Options makes six bytes of options, honest or not.
func (g *Generator) ipv6Options() []byte {
	return [][]byte{
		{1, 4, 0, 0, 0, 0},                     // padding
		{1, 255, 0, 0, 0, 0},                   // longer than the header
		{0xc2, 4, 0, 1, 0, 0},                  // jumbo payload
		{5, 2, 0, 0, 1, 0},                     // router alert
		{0, 0, 0, 0, 0, 0},                     // padding of one
		{byte(g.rand.Uint32()), 0, 3, 9, 9, 9}, // anything
	}[g.rand.IntN(6)]
}

// solicitation makes a neighbour solicitation with the options given.
func (g *Generator) solicitation(options []byte) []byte {
	p := append([]byte{ndpNeighborAsk, 0, 0, 0, 0, 0, 0, 0}, g.target.IPv6.AsSlice()...)
	return g.icmp6(append(p, options...))
}

func (g *Generator) icmp6(p []byte) []byte {
	g.sum(p, protoICMPv6, 2, g.target.FromIPv6, g.target.IPv6)
	return g.ether(etherIPv6, g.ipv6(protoICMPv6, p))
}

func (g *Generator) ndp() []byte {
	options := append(g.ndpOption(), g.ndpOption()...)
	if g.odds(3) {
		return g.solicitation(options)
	}
	kind := []byte{ndpNeighborAdvert, ndpRouterAdvert, ndpRedirect, 130, 143}[g.rand.IntN(5)]
	fixed := map[byte]int{ndpNeighborAdvert: 24, ndpRouterAdvert: 16, ndpRedirect: 40, 130: 24, 143: 8}[kind]
	p := g.exactly(fixed)
	p[0], p[1] = kind, 0
	if kind == ndpNeighborAdvert {
		copy(p[8:], g.target.IPv6.AsSlice()) // claims to be the target
	}
	p = append(p, options...)
	if g.odds(4) {
		p = p[:4+g.rand.IntN(len(p)-3)]
	}
	return g.icmp6(p)
}

// ndpOption makes an option whose length is 0, right, or beyond the packet.
func (g *Generator) ndpOption() []byte {
	o := g.exactly(8 * (1 + g.rand.IntN(4)))
	o[0] = byte(1 + g.rand.IntN(6))
	o[1] = []byte{0, byte(len(o) / 8), 255, byte(g.rand.Uint32())}[g.rand.IntN(4)]
	return o
}
