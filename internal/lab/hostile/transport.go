package hostile

import "encoding/binary"

// Flags, and where checksums are in their headers.
const (
	tcpSYN = 0x02
	tcpACK = 0x10

	tcpSum = 16
	udpSum = 6
)

func (g *Generator) tcpHeader() []byte {
	s := g.tcp(byte(g.rand.Uint32()), nil, g.bytes(200)) // any flags
	switch g.rand.IntN(4) {
	case 0:
		s[12] = byte(g.rand.IntN(5)) << 4 // shorter than the header
	case 1:
		s[12] = 0xf0 // beyond the segment, maybe
	case 2:
		s = s[:tcpLen-2] // cut behind the checksum
	default:
		binary.BigEndian.PutUint16(s[2:], uint16(g.rand.Uint32())) // any port
	}
	return g.spoil(g.ip(protoTCP, s, tcpSum))
}

// spoil makes the last byte, and so the checksum, wrong once in four times.
func (g *Generator) spoil(f []byte) []byte {
	if g.odds(4) {
		f[len(f)-1] ^= 0xff
	}
	return f
}

func (g *Generator) tcpOptions() []byte {
	o := g.exactly(4 * (1 + g.rand.IntN(10)))
	o[0] = []byte{2, 3, 4, 5, 8, 34, byte(g.rand.Uint32())}[g.rand.IntN(7)] // MSS, scale, SACK, time, fast open
	o[1] = []byte{0, 1, 2, 3, 255, byte(len(o)), byte(len(o) + 1)}[g.rand.IntN(7)]
	flags := []byte{tcpSYN, tcpACK, tcpSYN | tcpACK}[g.rand.IntN(3)]
	return g.ip(protoTCP, g.tcp(flags, o, nil), tcpSum)
}

// syn opens a connection that nobody completes, from a random port.
func (g *Generator) syn() []byte {
	return g.ip(protoTCP, g.tcp(tcpSYN, []byte{2, 4, 5, 0xb4}, nil), tcpSum)
}

func (g *Generator) udpHeader() []byte {
	d := g.udp(g.bytes(200))
	length := []int{0, g.rand.IntN(udpLen), len(d) + 1 + g.rand.IntN(60000), 65535}[g.rand.IntN(4)]
	if g.odds(5) {
		d = d[:udpLen]
	} else {
		binary.BigEndian.PutUint16(d[4:], uint16(length))
	}
	return g.spoil(g.ip(protoUDP, d, udpSum))
}

// Length of a Giant's payload; with headers it stays within an IPv4 packet.
const (
	giantLeast = 9000
	giantMost  = 65535 - ipv4Len - tcpLen
)

// giant is one TCP segment, of a connection that is not, that takes a segmenting
// NIC to send; Send has the kernel take it for one.
func (g *Generator) giant() []byte {
	s := g.tcp(tcpACK, nil, g.exactly(giantLeast+g.rand.IntN(giantMost-giantLeast+1)))
	// The checksum of the pseudo header alone: the rest is left to the NIC.
	pseudo := onesSum(g.target.FromIPv4.AsSlice(), 0)
	pseudo = onesSum(g.target.IPv4.AsSlice(), pseudo)
	pseudo = onesSum([]byte{0, protoTCP, byte(len(s) >> 8), byte(len(s))}, pseudo)
	binary.BigEndian.PutUint16(s[tcpSum:], pseudo)
	return g.ether(etherIPv4, g.ipv4(protoTCP, nil, s))
}
