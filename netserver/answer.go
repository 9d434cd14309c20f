package netserver

import "encoding/binary"

// maxQuote is how much of a refused packet an ICMP error carries, in bytes: far
// more than needed to find the socket, and less than any limit (RFC 1812, RFC
// 4443).
const maxQuote = 128

// maxAnswer is the length of the longest frame that the server makes anew.
const maxAnswer = ethLen + ip6Len + icmpLen + maxQuote

// arpAnswer writes the reply to an ARP request (RFC 826).
func (f *forwarder) arpAnswer(buf []byte, p *packet) []byte {
	be := binary.BigEndian
	b := f.ethernet(buf, p, etherARP)
	b = be.AppendUint16(b, 1)
	b = be.AppendUint16(b, etherIPv4)
	b = append(b, 6, 4)
	b = be.AppendUint16(b, arpReply)
	b = append(b, f.mac[:]...)
	b = append(b, p.arp.tpa[:]...)
	b = append(b, p.arp.sha[:]...)
	return append(b, p.arp.spa[:]...)
}

// ethernet begins a frame back to p's sender.
func (f *forwarder) ethernet(buf []byte, p *packet, ether uint16) []byte {
	b := append(buf[:0], p.srcMAC[:]...)
	b = append(b, f.mac[:]...)
	return binary.BigEndian.AppendUint16(b, ether)
}

// allNodes is ff02::1.
var allNodes = [16]byte{0: 0xff, 1: 2, 15: 1}

// ndpAnswer writes the advertisement that answers the solicitation in frame b
// (RFC 4861, 7.2.4). One from the unspecified address, which detects
// duplicates, is answered to all nodes.
func (f *forwarder) ndpAnswer(buf []byte, p *packet, b []byte) []byte {
	const size = 32
	src, target := [16]byte(b[p.ip.l3+8:]), [16]byte(b[p.ip.l4+icmpLen:])
	const solicited, override = 0x40, 0x20
	flags := byte(solicited | override)
	a := f.ethernet(buf, p, etherIPv6)
	if src == [16]byte{} {
		src, flags = allNodes, override
		copy(a, []byte{0x33, 0x33, 0, 0, 0, 1})
	}
	a = appendIPv6(a, size, protoICMPv6, 255, target[:], src[:])
	a = append(a, icmp6Advertise, 0, 0, 0, flags, 0, 0, 0)
	a = append(a, target[:]...)
	a = append(a, 2, 1) // option: target link-layer address
	a = append(a, f.mac[:]...)
	return seal(a, ethLen+ip6Len, ethLen+ip6Len+2, true, protoICMPv6)
}

func appendIPv6(b []byte, payload int, proto, hops byte, src, dst []byte) []byte {
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(payload))
	b = append(b, proto, hops)
	return append(append(b, src...), dst...)
}

func appendIPv4(b []byte, payload int, proto byte, src, dst []byte) []byte {
	const dontFragment, ttl = 0x40, 64
	off := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ip4Len+payload))
	b = append(b, 0, 0, dontFragment, 0, ttl, proto, 0, 0)
	b = append(append(b, src...), dst...)
	binary.BigEndian.PutUint16(b[off+10:], ^fold(sum(0, b[off:])))
	return b
}

// appendIP begins a packet in the opposite direction of p, which is in b.
func (p *packet) appendIP(a, b []byte, payload int, proto byte) []byte {
	if p.ip.v6 {
		const hops = 64
		return appendIPv6(a, payload, proto, hops, b[p.ip.l3+24:p.ip.l3+40], b[p.ip.l3+8:p.ip.l3+24])
	}
	return appendIPv4(a, payload, proto, b[p.ip.l3+16:p.ip.l3+20], b[p.ip.l3+12:p.ip.l3+16])
}

// resetAnswer writes the reset that refuses TCP segment p (RFC 9293, 3.10.7.1).
// It returns nil if p is a reset itself, or no segment.
func (f *forwarder) resetAnswer(buf []byte, p *packet, b []byte) []byte {
	const size = 20
	const fin, syn, rst, ack = 1, 2, 4, 16
	be := binary.BigEndian
	if p.ip.l4+size > len(b) {
		return nil
	}
	t := b[p.ip.l4:]
	flags, header := t[13], int(t[12]>>4)*4
	data := p.ip.end - p.ip.l4 - header
	if flags&rst != 0 || header < size || data < 0 {
		return nil
	}
	seq, next, mine := uint32(0), be.Uint32(t[4:])+uint32(data), byte(rst|ack)
	if flags&syn != 0 {
		next++
	}
	if flags&fin != 0 {
		next++
	}
	if flags&ack != 0 {
		seq, next, mine = be.Uint32(t[8:]), 0, rst
	}
	a := p.appendIP(f.ethernet(buf, p, p.ether), b, size, protoTCP)
	l4 := len(a)
	a = be.AppendUint16(a, p.ip.dport)
	a = be.AppendUint16(a, p.ip.sport)
	a = be.AppendUint32(a, seq)
	a = be.AppendUint32(a, next)
	a = append(a, size/4<<4, mine, 0, 0, 0, 0, 0, 0)
	return seal(a, l4, l4+16, p.ip.v6, protoTCP)
}

// portAnswer writes the ICMP error that refuses datagram p (RFC 792, RFC 4443).
func (f *forwarder) portAnswer(buf []byte, p *packet, b []byte) []byte {
	quote := b[p.ip.l3:min(len(b), p.ip.end, p.ip.l3+maxQuote)]
	kind, code, proto := byte(icmpUnreachable), byte(3), byte(protoICMP)
	if p.ip.v6 {
		kind, code, proto = icmp6Unreachable, 4, protoICMPv6
	}
	a := p.appendIP(f.ethernet(buf, p, p.ether), b, icmpLen+len(quote), proto)
	l4 := len(a)
	a = append(a, kind, code, 0, 0, 0, 0, 0, 0)
	a = append(a, quote...)
	return seal(a, l4, l4+2, p.ip.v6, proto)
}

// turnRound makes an echo request in b, or a further fragment of one, the
// reply, in place. The checksum covers all fragments, but only the type changes.
func (f *forwarder) turnRound(b []byte, p *packet, first bool) {
	copy(b, p.srcMAC[:])
	copy(b[6:], f.mac[:])
	ip := b[p.ip.l3:]
	if p.ip.v6 {
		swap(ip[8:24], ip[24:40])
	} else {
		swap(ip[12:16], ip[16:20])
	}
	if !first {
		return
	}
	m := b[p.ip.l4:]
	m[0] = icmpEchoReply
	if p.ip.v6 {
		m[0] = icmp6EchoReply
	}
	// RFC 1624, equation 3. For IPv6 the sum over the addresses stays.
	be, was, is := binary.BigEndian, uint16(p.icmp.kind)<<8, uint16(m[0])<<8
	be.PutUint16(m[2:], ^fold(uint32(^be.Uint16(m[2:]))+uint32(^was)+uint32(is)))
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

// seal fills in the checksum at offset at of the transport header at l4, which
// reaches to the end of frame a.
func seal(a []byte, l4, at int, v6 bool, proto byte) []byte {
	s := sum(0, a[l4:])
	switch {
	case v6:
		s = sum(s, a[l4-32:l4]) + uint32(len(a)-l4) + uint32(proto)
	case proto != protoICMP:
		s = sum(s, a[l4-8:l4]) + uint32(len(a)-l4) + uint32(proto)
	}
	binary.BigEndian.PutUint16(a[at:], ^fold(s))
	return a
}

// sum adds b to a sum of 16-bit words (RFC 1071). b is so short that nothing
// overflows.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
