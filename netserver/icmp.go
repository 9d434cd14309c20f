package netserver

import (
	"encoding/binary"

	"junction/portmap/table"
)

// Types of ICMP and ICMPv6 messages (RFC 792, RFC 4443, RFC 4861).
const (
	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpQuench       = 4
	icmpRedirect     = 5
	icmpEcho         = 8
	icmpTimeExceeded = 11
	icmpParameter    = 12

	icmp6Unreachable   = 1
	icmp6Parameter     = 4 // the last of the errors that quote a packet
	icmp6Echo          = 128
	icmp6EchoReply     = 129
	icmp6MLDFirst      = 130
	icmp6MLDLast       = 132
	icmp6RouterSolicit = 133
	icmp6Solicit       = 135
	icmp6Advertise     = 136
	icmp6Redirect      = 137
	icmp6MLDv2         = 143
)

const icmpLen = 8

// parse finds the fields of the ICMP message that follows h.
func (m *icmpHeader) parse(b []byte, h *ipHeader) reason {
	if h.l4+icmpLen > h.end {
		return dropIPMalformed
	}
	if h.l4+icmpLen > len(b) {
		return dropLongHeaders
	}
	x := b[h.l4:]
	m.kind, m.code, m.ident = x[0], x[1], binary.BigEndian.Uint16(x[4:])
	switch {
	case m.quotes(h.v6):
		m.parseQuote(b, h)
	case h.v6 && (m.kind == icmp6Solicit || m.kind == icmp6Advertise):
		const target = icmpLen + 16
		if h.l4+target > min(h.end, len(b)) {
			return dropIPMalformed
		}
		m.target = table.Key16((*[16]byte)(x[icmpLen:target]))
	}
	return dropNone
}

// quotes tells whether the message is an error, which quotes a packet.
func (m *icmpHeader) quotes(v6 bool) bool {
	if v6 {
		return m.kind >= icmp6Unreachable && m.kind <= icmp6Parameter
	}
	switch m.kind {
	case icmpUnreachable, icmpQuench, icmpRedirect, icmpTimeExceeded, icmpParameter:
		return true
	}
	return false
}

// parseQuote reads the quoted packet, of which at least the IP header and 8
// bytes should be there. What does not parse is as if there were none.
func (m *icmpHeader) parseQuote(b []byte, h *ipHeader) {
	const quoted = 65535 // the quoted packet's own length says nothing here
	b = b[:min(len(b), h.end)]
	q := &m.quoted
	if q.parse(b, h.l4+icmpLen, h.l4+icmpLen+quoted+ip6Len, h.v6) != dropNone {
		return
	}
	if q.l4 != 0 && (q.proto == protoTCP || q.proto == protoUDP) {
		if q.l4+4 > len(b) {
			return
		}
		q.sport, q.dport = binary.BigEndian.Uint16(b[q.l4:]), binary.BigEndian.Uint16(b[q.l4+2:])
	}
	m.ident = 0
	if q.l4 != 0 && q.l4+icmpLen <= len(b) {
		m.ident = binary.BigEndian.Uint16(b[q.l4+4:]) // of an echo request
	}
	m.quote = q
}

// echo tells whether the message is an echo request, or its reply.
func (m *icmpHeader) echo(v6 bool) (request, reply bool) {
	if v6 {
		return m.kind == icmp6Echo, m.kind == icmp6EchoReply
	}
	return m.kind == icmpEcho, m.kind == icmpEchoReply
}
