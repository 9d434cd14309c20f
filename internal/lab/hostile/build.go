package hostile

import (
	"encoding/binary"
	"net/netip"
)

// Ether types, protocol numbers and lengths (IANA; RFC 791, 8200, 9293, 768).
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
	ether8021 = 0x8100
	ether88a8 = 0x88a8

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	etherLen = 14
	ipv4Len  = 20
	ipv6Len  = 40
	tcpLen   = 20
	udpLen   = 8
)

// The builders make good packets; their callers then spoil them.

func (g *Generator) ether(kind uint16, payload []byte) []byte {
	f := make([]byte, 0, etherLen+len(payload))
	f = append(f, g.target.MAC...)
	f = append(f, g.target.FromMAC...)
	f = binary.BigEndian.AppendUint16(f, kind)
	return append(f, payload...)
}

// ipv4 makes a packet with options, whose length must be a multiple of 4 up to
// 40, and a right checksum.
func (g *Generator) ipv4(proto byte, options, payload []byte) []byte {
	h := make([]byte, ipv4Len, ipv4Len+len(options)+len(payload))
	h[0] = 0x40 | byte((ipv4Len+len(options))/4)
	binary.BigEndian.PutUint16(h[2:], uint16(ipv4Len+len(options)+len(payload)))
	binary.BigEndian.PutUint16(h[4:], uint16(g.rand.Uint32()))
	h[8], h[9] = 64, proto
	copy(h[12:], g.target.FromIPv4.AsSlice())
	copy(h[16:], g.target.IPv4.AsSlice())
	h = append(h, options...)
	sumIPv4(h)
	return append(h, payload...)
}

// sumIPv4 sets the checksum of the header h.
func sumIPv4(h []byte) {
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^onesSum(h, 0))
}

func (g *Generator) ipv6(next byte, payload []byte) []byte {
	h := make([]byte, ipv6Len, ipv6Len+len(payload))
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = next, 255 // as NDP wants it
	copy(h[8:], g.target.FromIPv6.AsSlice())
	copy(h[24:], g.target.IPv6.AsSlice())
	return append(h, payload...)
}

// ip wraps a transport packet in either version, with its checksum, whose offset
// in the packet is given, set right.
func (g *Generator) ip(proto byte, packet []byte, sumAt int) []byte {
	if g.odds(2) {
		g.sum(packet, proto, sumAt, g.target.FromIPv4, g.target.IPv4)
		return g.ether(etherIPv4, g.ipv4(proto, nil, packet))
	}
	g.sum(packet, proto, sumAt, g.target.FromIPv6, g.target.IPv6)
	return g.ether(etherIPv6, g.ipv6(proto, packet))
}

// sum sets a transport checksum (with pseudo header) in place.
func (g *Generator) sum(packet []byte, proto byte, at int, src, dst netip.Addr) {
	packet[at], packet[at+1] = 0, 0
	initial := onesSum(src.AsSlice(), 0)
	initial = onesSum(dst.AsSlice(), initial)
	initial = onesSum([]byte{0, proto, byte(len(packet) >> 8), byte(len(packet))}, initial)
	binary.BigEndian.PutUint16(packet[at:], ^onesSum(packet, initial))
}

// onesSum adds b to a ones' complement sum (RFC 1071).
func onesSum(b []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// tcp makes a segment with options, whose length must be a multiple of 4 up to
// 40.
func (g *Generator) tcp(flags byte, options, payload []byte) []byte {
	s := make([]byte, tcpLen, tcpLen+len(options)+len(payload))
	binary.BigEndian.PutUint16(s, g.port())
	binary.BigEndian.PutUint16(s[2:], g.target.TCPPort)
	binary.BigEndian.PutUint32(s[4:], g.rand.Uint32())
	binary.BigEndian.PutUint32(s[8:], g.rand.Uint32())
	s[12] = byte((tcpLen+len(options))/4) << 4
	s[13] = flags
	binary.BigEndian.PutUint16(s[14:], uint16(g.rand.Uint32()))
	return append(append(s, options...), payload...)
}

func (g *Generator) udp(payload []byte) []byte {
	d := make([]byte, udpLen, udpLen+len(payload))
	binary.BigEndian.PutUint16(d, g.port())
	binary.BigEndian.PutUint16(d[2:], g.target.UDPPort)
	binary.BigEndian.PutUint16(d[4:], uint16(udpLen+len(payload)))
	return append(d, payload...)
}

// port is one that nobody's server has.
func (g *Generator) port() uint16 { return uint16(32768 + g.rand.IntN(28000)) }

// odds is true once in n times.
func (g *Generator) odds(n int) bool { return g.rand.IntN(n) == 0 }

// bytes makes up to most random bytes.
func (g *Generator) bytes(most int) []byte { return g.exactly(g.rand.IntN(most + 1)) }

func (g *Generator) exactly(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.rand.Uint32())
	}
	return b
}
