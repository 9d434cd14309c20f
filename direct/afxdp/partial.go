package afxdp

import (
	"encoding/binary"

	"junction/direct/internal/nic"
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	protoTCP = 6
	protoUDP = 17
)

// partialChecksum looks for the partial checksum that Linux leaves in a TCP or
// UDP packet of its own when it sends it through a device that says it fills
// checksums in, as veth does: the field holds the sum of the pseudo-header
// (RFC 9293, 3.1; RFC 8200, 8.1) alone. AF_XDP does not say so beside the
// frame, so it is read off the frame. It returns where the checksum starts and
// the offset of its field from there.
//
// A frame with a complete checksum is not reported, and the stack verifies it:
// frames that were forwarded to the veth may have been damaged on their way.
func partialChecksum(frame []byte) (start, offset uint16, ok bool) {
	if len(frame) < nic.EthHdrLen {
		return 0, 0, false
	}
	ip := frame[nic.EthHdrLen:]
	var proto byte
	var payload int // offset of the transport header in ip
	var end int
	var sum uint32
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4:
		proto, payload, end, sum, ok = pseudoIPv4(ip)
	case etherIPv6:
		proto, payload, end, sum, ok = pseudoIPv6(ip)
	}
	if !ok {
		return 0, 0, false
	}
	switch proto {
	case protoTCP:
		offset = 16
	case protoUDP:
		offset = 6
	default:
		return 0, 0, false
	}
	at := payload + int(offset)
	if at+2 > end || end > len(ip) {
		return 0, 0, false
	}
	sum += uint32(proto) + uint32(end-payload)
	if binary.BigEndian.Uint16(ip[at:]) != fold(sum) {
		return 0, 0, false
	}
	return uint16(nic.EthHdrLen + payload), offset, true
}

// pseudoIPv4 returns protocol, start and end of the payload, and the sum of the
// addresses. Fragments have no partial checksum.
func pseudoIPv4(ip []byte) (proto byte, payload, end int, sum uint32, ok bool) {
	if len(ip) < 20 || ip[0]>>4 != 4 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return 0, 0, 0, 0, false
	}
	payload = int(ip[0]&0x0f) * 4
	end = int(binary.BigEndian.Uint16(ip[2:]))
	return ip[9], payload, end, sumWords(ip[12:20]), payload >= 20 && end >= payload
}

func pseudoIPv6(ip []byte) (proto byte, payload, end int, sum uint32, ok bool) {
	if len(ip) < 40 || ip[0]>>4 != 6 {
		return 0, 0, 0, 0, false
	}
	end = 40 + int(binary.BigEndian.Uint16(ip[4:]))
	proto, payload, ok = skipExtensions(ip, ip[6], end)
	return proto, payload, end, sumWords(ip[8:40]), ok
}

// skipExtensions returns the first header behind hop-by-hop and destination
// options. Any other chain is left to the stack, which then finds a bad
// checksum: a local sender has no partial checksum behind those.
func skipExtensions(ip []byte, next byte, end int) (proto byte, payload int, ok bool) {
	payload = 40
	for range 4 {
		if next != 0 && next != 60 {
			return next, payload, true
		}
		if payload+8 > end || end > len(ip) {
			return 0, 0, false
		}
		next, payload = ip[payload], payload+8*(1+int(ip[payload+1]))
	}
	return 0, 0, false
}

// sumWords adds up the 16-bit big-endian words of b, of which there are few.
func sumWords(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
