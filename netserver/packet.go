package netserver

import (
	"encoding/binary"

	"junction/portmap/table"
)

// Ethernet and IP numbers (IANA).
const (
	ethLen = 14

	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
	etherIPv6 = 0x86dd

	protoICMP   = 1
	protoIGMP   = 2
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// mac is an Ethernet address.
type mac [6]byte

func (m *mac) group() bool { return m[0]&1 != 0 }

// packet is what of a frame's headers decides where it goes. Offsets are from
// the beginning of the frame.
type packet struct {
	dstMAC, srcMAC mac
	ether          uint16
	head           []byte // what was parsed; valid as long as that is

	ip   ipHeader
	arp  arpHeader // with etherARP
	icmp icmpHeader
	igmp uint8 // type, 0 if there is none
}

// ipHeader is an IPv4 or IPv6 header, with extension headers.
type ipHeader struct {
	v6       bool
	src, dst table.Key
	proto    uint8 // of what follows all headers of IP
	l3, l4   int   // offsets; l4 is 0 in fragments but the first
	end      int   // offset of the end of the packet, padding excluded
	fragment bool
	first    bool // of a fragment: offset 0
	fragID   uint32
	sport    uint16 // of TCP and UDP, if l4 is not 0
	dport    uint16
	group    bool // dst is a group's or broadcast address
}

// icmpHeader is the beginning of an ICMP message of either version, if l4 is
// not 0.
type icmpHeader struct {
	kind, code uint8
	ident      uint16 // of echo messages, and of those quoted
	quote      *ipHeader
	quoted     ipHeader // what quote points to
	target     table.Key
}

// arpHeader is an ARP packet for IPv4 over Ethernet (RFC 826).
type arpHeader struct {
	op             uint16
	sha            mac
	spa, tpa       [4]byte
	senderK, targK table.Key
}

// parse finds the headers of a frame of length bytes, of which b is the
// beginning. It returns dropNone, or why the frame cannot be forwarded.
func (p *packet) parse(b []byte, length int) reason {
	*p = packet{head: b}
	if len(b) < ethLen || length < len(b) {
		return dropShort
	}
	p.dstMAC, p.srcMAC = mac(b[0:6]), mac(b[6:12])
	p.ether = binary.BigEndian.Uint16(b[12:])
	switch p.ether {
	case etherIPv4, etherIPv6:
		if why := p.ip.parse(b, ethLen, length, p.ether == etherIPv6); why != dropNone {
			return why
		}
		return p.transport(b)
	case etherARP:
		return p.arp.parse(b[ethLen:])
	case etherVLAN, etherQinQ:
		return dropVLAN
	}
	return dropEtherType
}

func (a *arpHeader) parse(b []byte) reason {
	const size, ethernet = 28, 1
	be := binary.BigEndian
	if len(b) < size || be.Uint16(b) != ethernet || be.Uint16(b[2:]) != etherIPv4 || b[4] != 6 || b[5] != 4 {
		return dropARPMalformed
	}
	a.op, a.sha = be.Uint16(b[6:]), mac(b[8:14])
	a.spa, a.tpa = [4]byte(b[14:18]), [4]byte(b[24:28])
	a.senderK, a.targK = table.Key4(&a.spa), table.Key4(&a.tpa)
	return dropNone
}

// transport finds ports and ICMP's fields.
func (p *packet) transport(b []byte) reason {
	h := &p.ip
	if h.l4 == 0 {
		return dropNone
	}
	switch {
	case h.proto == protoTCP || h.proto == protoUDP:
		return h.ports(b)
	case h.proto == protoIGMP && !h.v6 && !h.fragment:
		if h.l4+icmpLen > min(h.end, len(b)) {
			return dropIPMalformed
		}
		p.igmp = b[h.l4]
	case h.proto == protoICMP && !h.v6, h.proto == protoICMPv6 && h.v6:
		return p.icmp.parse(b, h)
	}
	return dropNone
}

// ports finds the ports. A header that is not complete in the first fragment
// is refused, as RFC 1858 and RFC 7112 advise.
func (h *ipHeader) ports(b []byte) reason {
	least := 8
	if h.proto == protoTCP {
		least = 20
	}
	if h.l4+least > h.end {
		return dropIPMalformed
	}
	if h.l4+4 > len(b) {
		return dropLongHeaders
	}
	h.sport, h.dport = binary.BigEndian.Uint16(b[h.l4:]), binary.BigEndian.Uint16(b[h.l4+2:])
	return dropNone
}
