// Package egress says which of its frames an instance in direct mode may send
// through its VF; the others go through its ring to the network server. It is the
// instance's side of the program egress in direct/steer, which enforces it.
package egress

import (
	"encoding/binary"

	"junction/direct/steer/scope"
	"junction/portmap/table"
)

const (
	ethLen, ip4Len, ip6Len = 14, 20, 40

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	protoTCP      = 6
	protoUDP      = 17
	protoFragment = 44
	protoICMPv6   = 58

	ndpFirst, ndpLast = 133, 137 // RFC 4861, 4.1 to 4.5
)

// Rules are what ByVF decides by.
type Rules struct {
	// MAC is the NIC's address.
	MAC [6]byte
	// Shared: the instance has a shared IP address, no dedicated one.
	Shared bool
	// Ports are the local ports that the VF is for, nil for all.
	Ports *scope.Ports
}

// ByVF tells whether the frame that begins with head may leave through the VF. head
// holds at least the first 58 bytes of the frame, or all of it.
//
// The network server's are: what all stations or a group get; what goes to the
// NIC's own address, which the other instances have, too; neighbour discovery, and
// what of IPv6 may hide it behind extension headers; all
// that is not IP; and, from a shared address, all but whole TCP and UDP packets
// without options or extension headers, for only these show whose they are. If the
// VF is for some ports only, so is what comes from others, or does not show its port:
// a flow keeps to one path in both directions.
func (r *Rules) ByVF(head []byte) bool {
	if len(head) < ethLen || head[0]&1 != 0 || [6]byte(head) == r.MAC {
		return false
	}
	ip := head[ethLen:]
	switch binary.BigEndian.Uint16(head[12:]) {
	case etherIPv4:
		return r.byVF4(ip)
	case etherIPv6:
		return r.byVF6(ip)
	}
	return false
}

func (r *Rules) byVF4(ip []byte) bool {
	if len(ip) < ip4Len || ip[0]>>4 != 4 || ip[0]&0xf < ip4Len/4 {
		return false
	}
	const moreAndOffset = 0x3fff
	whole := ip[0]&0xf == ip4Len/4 && binary.BigEndian.Uint16(ip[6:])&moreAndOffset == 0
	return !r.byPort() || whole && r.hasPort(ip[9], ip[ip4Len:])
}

func (r *Rules) byVF6(ip []byte) bool {
	if len(ip) < ip6Len || ip[0]>>4 != 6 {
		return false
	}
	next, rest := ip[6], ip[ip6Len:]
	return !mayBeNDP(next, rest) && (!r.byPort() || r.hasPort(next, rest))
}

// mayBeNDP tells whether rest, behind an IPv6 header that says what is next, may be
// neighbour discovery.
func mayBeNDP(next byte, rest []byte) bool {
	switch {
	case next == protoTCP || next == protoUDP:
		return false
	case len(rest) == 0:
		return true
	case next == protoICMPv6:
		return rest[0] >= ndpFirst && rest[0] <= ndpLast
	}
	return next != protoFragment || rest[0] != protoTCP && rest[0] != protoUDP
}

// byPort tells whether it depends on a packet's port.
func (r *Rules) byPort() bool { return r.Shared || r.Ports != nil }

// hasPort tells whether a packet shows its ports, and the VF is for the local one.
func (r *Rules) hasPort(proto byte, rest []byte) bool {
	if len(rest) < 4 {
		return false
	}
	port := binary.BigEndian.Uint16(rest)
	switch proto {
	case protoTCP:
		return r.Ports.Has(table.TCP, port)
	case protoUDP:
		return r.Ports.Has(table.UDP, port)
	}
	return false
}
