// Package egress says which of its frames an instance in direct mode may send
// through its VF; the others go through its ring to the network server. It is the
// instance's side of the program egress in direct/steer, which enforces it.
package egress

import "encoding/binary"

const (
	ethLen, ip4Len, ip6Len = 14, 20, 40

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	ndpFirst, ndpLast = 133, 137 // RFC 4861, 4.1 to 4.5
)

// ByVF tells whether the frame that begins with head may leave through the VF. mac
// is the NIC's address; shared says that the instance has a shared IP address, no
// dedicated one. head holds at least the first 58 bytes of the frame, or all of it.
//
// The network server's are: what all stations or a group get; what goes to the
// NIC's own address, which the other instances have, too; neighbour discovery; all
// that is not IP; and, from a shared address, all but whole TCP and UDP packets
// without options or extension headers, for only these show whose they are.
func ByVF(head []byte, mac [6]byte, shared bool) bool {
	if len(head) < ethLen || head[0]&1 != 0 || [6]byte(head) == mac {
		return false
	}
	ip := head[ethLen:]
	switch binary.BigEndian.Uint16(head[12:]) {
	case etherIPv4:
		return byVF4(ip, shared)
	case etherIPv6:
		return byVF6(ip, shared)
	}
	return false
}

func byVF4(ip []byte, shared bool) bool {
	if len(ip) < ip4Len || ip[0]>>4 != 4 || ip[0]&0xf < ip4Len/4 {
		return false
	}
	const moreAndOffset = 0x3fff
	whole := ip[0]&0xf == ip4Len/4 && binary.BigEndian.Uint16(ip[6:])&moreAndOffset == 0
	return !shared || whole && hasPorts(ip[9], ip[ip4Len:])
}

func byVF6(ip []byte, shared bool) bool {
	if len(ip) < ip6Len || ip[0]>>4 != 6 {
		return false
	}
	next, rest := ip[6], ip[ip6Len:]
	if next == protoICMPv6 && (len(rest) == 0 || rest[0] >= ndpFirst && rest[0] <= ndpLast) {
		return false
	}
	return !shared || hasPorts(next, rest)
}

func hasPorts(proto byte, rest []byte) bool {
	return (proto == protoTCP || proto == protoUDP) && len(rest) >= 4
}
