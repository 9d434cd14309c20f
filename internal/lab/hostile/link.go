package hostile

import "encoding/binary"

// maxFrame is the longest frame of all classes but Giant: an Ethernet MTU.
const maxFrame = 1514

// good makes a frame that an honest machine might send.
func (g *Generator) good() []byte {
	switch g.rand.IntN(5) {
	case 0:
		return g.ether(etherARP, g.arpPacket())
	case 1:
		return g.ip(protoTCP, g.tcp(tcpACK, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0}, g.bytes(1000)), tcpSum)
	case 2:
		return g.ip(protoUDP, g.udp(g.bytes(1000)), udpSum)
	case 3:
		return g.echo()
	default:
		return g.solicitation(nil)
	}
}

// echo makes an ICMP echo request.
func (g *Generator) echo() []byte {
	p := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, g.bytes(1000)...)
	binary.BigEndian.PutUint16(p[2:], ^onesSum(p, 0))
	return g.ether(etherIPv4, g.ipv4(protoICMP, nil, p))
}

func (g *Generator) truncated() []byte {
	f := g.good()
	return f[:1+g.rand.IntN(len(f))]
}

func (g *Generator) noise() []byte {
	kinds := []uint16{etherIPv4, etherIPv6, etherARP, ether8021, ether88a8, uint16(g.rand.Uint32())}
	return g.ether(kinds[g.rand.IntN(len(kinds))], g.bytes(maxFrame-etherLen))
}

// mutated leaves the addresses alone, so that the frame arrives.
func (g *Generator) mutated() []byte {
	f := g.good()
	for range 1 + g.rand.IntN(8) {
		f[12+g.rand.IntN(len(f)-12)] = byte(g.rand.Uint32())
	}
	return f
}

func (g *Generator) vlan() []byte {
	f := g.good()
	tags := []int{1, 2, 2 + g.rand.IntN(8), 100}[g.rand.IntN(4)]
	tagged := append([]byte{}, f[:12]...)
	for range tags {
		kind := []uint16{ether8021, ether88a8}[g.rand.IntN(2)]
		tagged = binary.BigEndian.AppendUint16(tagged, kind)
		tagged = binary.BigEndian.AppendUint16(tagged, uint16(g.rand.Uint32()))
	}
	if !g.odds(4) { // else cut off after the tags
		tagged = append(tagged, f[12:]...)
	}
	return tagged[:min(len(tagged), maxFrame)]
}

// arpPacket makes a request (RFC 826).
func (g *Generator) arpPacket() []byte {
	p := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	p = append(p, g.target.FromMAC...)
	p = append(p, g.target.FromIPv4.AsSlice()...)
	p = append(p, 0, 0, 0, 0, 0, 0)
	return append(p, g.target.IPv4.AsSlice()...)
}

func (g *Generator) arp() []byte {
	p := g.arpPacket()
	switch g.rand.IntN(6) {
	case 0:
		p[4] = byte(g.rand.Uint32()) // length of a hardware address
	case 1:
		p[5] = byte(g.rand.Uint32()) // length of a protocol address
	case 2:
		copy(p, g.exactly(8))
	case 3:
		p[7] = byte(g.rand.Uint32()) // operation, also replies nobody asked for
	case 4:
		copy(p[14:], g.target.IPv4.AsSlice()) // claims to be the target
	default:
		p = p[:g.rand.IntN(len(p))]
	}
	return g.ether(etherARP, p)
}
