package hostile

import "encoding/binary"

func (g *Generator) ipv4Header() []byte {
	p := g.ipv4(protoUDP, nil, g.udp(g.bytes(200)))
	switch g.rand.IntN(7) {
	case 0:
		p[0] = 0x40 | byte(g.rand.IntN(5)) // header shorter than a header
	case 1:
		p[0] = 0x4f // header longer than what it says it is
	case 2:
		p[0] = byte(g.rand.IntN(16))<<4 | 5 // version
	case 3:
		binary.BigEndian.PutUint16(p[2:], uint16(g.rand.IntN(ipv4Len))) // shorter than the header
	case 4:
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)+1+g.rand.IntN(60000))) // longer than the frame
	case 5:
		p[8] = 0 // time to live
	default:
		copy(p[12:], [][]byte{{255, 255, 255, 255}, {127, 0, 0, 1}, {224, 0, 0, 1}, {0, 0, 0, 0}}[g.rand.IntN(4)])
	}
	if g.odds(8) {
		p[10] ^= 0x55 // checksum
	} else {
		sumIPv4(p[:ipv4Len])
	}
	return g.ether(etherIPv4, p)
}

func (g *Generator) ipv4Options() []byte {
	o := g.exactly(4 * (1 + g.rand.IntN(10)))
	o[0] = []byte{7, 68, 131, 137, 130, 148, byte(g.rand.Uint32())}[g.rand.IntN(7)] // RR, timestamp, LSRR, SSRR, ...
	o[1] = []byte{0, 1, 2, 3, 255, byte(len(o)), byte(len(o) + 1)}[g.rand.IntN(7)]
	o[2] = byte(g.rand.IntN(48)) // pointer
	return g.ether(etherIPv4, g.ipv4(protoUDP, o, g.udp(g.bytes(100))))
}

// ipv4Fragment makes a fragment of one of a few packets, so that they meet, and
// overlap, and are rarely complete.
func (g *Generator) ipv4Fragment() []byte {
	offset := []int{0, 1, g.rand.IntN(16), g.rand.IntN(8192), 8191}[g.rand.IntN(5)]
	p := g.ipv4(protoUDP, nil, g.bytes(1400))
	binary.BigEndian.PutUint16(p[4:], uint16(g.rand.IntN(4)))
	more := uint16(g.rand.IntN(2)) << 13
	binary.BigEndian.PutUint16(p[6:], more|uint16(offset))
	sumIPv4(p[:ipv4Len])
	return g.ether(etherIPv4, p)
}

// icmpError makes an error about a packet that was never sent, or is none.
func (g *Generator) icmpError() []byte {
	quoted := [][]byte{
		g.bytes(60),
		g.ipv4(protoTCP, nil, g.tcp(tcpSYN, nil, nil)),
		g.ipv4(protoICMP, nil, []byte{3, 1, 0, 0, 0, 0, 0, 0}), // an error about an error
		g.ipv4(protoUDP, nil, nil)[:g.rand.IntN(ipv4Len)],
	}[g.rand.IntN(4)]
	if g.odds(2) {
		kind := []byte{1, 2, 3, 4, byte(g.rand.IntN(128))}[g.rand.IntN(5)]
		p := append([]byte{kind, byte(g.rand.IntN(8)), 0, 0, 0, 0, 0, byte(g.rand.Uint32())}, quoted...)
		g.sum(p, protoICMPv6, 2, g.target.FromIPv6, g.target.IPv6)
		return g.ether(etherIPv6, g.ipv6(protoICMPv6, p))
	}
	kind := []byte{3, 4, 5, 11, 12, byte(g.rand.Uint32())}[g.rand.IntN(6)]
	p := append([]byte{kind, byte(g.rand.IntN(16)), 0, 0, 0, 0, 0, byte(g.rand.Uint32())}, quoted...)
	binary.BigEndian.PutUint16(p[2:], ^onesSum(p, 0))
	return g.ether(etherIPv4, g.ipv4(protoICMP, nil, p))
}
