package netserver

import "bytes"

// discovers tells whether p is neighbour discovery (RFC 4861, 4.1 to 4.5).
func (p *packet) discovers() bool {
	h := &p.ip
	return h.v6 && h.l4 != 0 && h.proto == protoICMPv6 && p.icmp.kind >= icmp6RouterSolicit && p.icmp.kind <= icmp6Redirect
}

// discovery checks what an instance says of addresses in neighbour discovery: it
// advertises only its own, and with the NIC's MAC address, which all of ours have.
// Another one, for a shared address, would take the others' packets away.
func (f *forwarder) discovery(s *sender, p *packet) reason {
	h := &p.ip
	if h.fragment {
		return dropFragment // RFC 6980
	}
	if p.icmp.kind == icmp6Advertise && !f.owns(s, p.icmp.target) {
		return dropSpoofedIP
	}
	if h.end > len(p.head) {
		return dropLongHeaders
	}
	return f.linkAddresses(p.head[h.l4:h.end], p.icmp.kind)
}

// linkAddresses checks the options of a message.
func (f *forwarder) linkAddresses(m []byte, kind uint8) reason {
	const source, target, unit = 1, 2, 8
	at := discoveryOptions[kind-icmp6RouterSolicit]
	if at > len(m) {
		return dropIPMalformed
	}
	for m = m[at:]; len(m) > 0; {
		if len(m) < unit || m[1] == 0 || int(m[1])*unit > len(m) {
			return dropIPMalformed
		}
		size := int(m[1]) * unit
		if (m[0] == source || m[0] == target) && !bytes.Equal(m[2:size], f.mac[:]) {
			return dropSpoofedMAC
		}
		m = m[size:]
	}
	return dropNone
}

// discoveryOptions says where the options begin, by kind from icmp6RouterSolicit on.
var discoveryOptions = [...]int{8, 16, 24, 24, 40}
