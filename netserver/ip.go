package netserver

import (
	"encoding/binary"

	"junction/portmap/table"
)

// Lengths of headers in bytes.
const (
	ip4Len = 20
	ip6Len = 40
)

// parse finds the IP header at offset off of a frame of length bytes.
func (h *ipHeader) parse(b []byte, off, length int, v6 bool) reason {
	h.v6, h.l3 = v6, off
	if v6 {
		return h.parse6(b, off, length)
	}
	return h.parse4(b, off, length)
}

// parse4 is for IPv4 (RFC 791).
func (h *ipHeader) parse4(b []byte, off, length int) reason {
	if off+ip4Len > len(b) {
		return dropIPMalformed
	}
	ip := b[off:]
	size, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || size < ip4Len || total < size || off+total > length {
		return dropIPMalformed
	}
	dst := [4]byte(ip[16:20])
	h.src, h.dst = table.Key4((*[4]byte)(ip[12:16])), table.Key4(&dst)
	h.group = dst[0]>>4 == 0xe || dst == [4]byte{255, 255, 255, 255}
	h.proto, h.end = ip[9], off+total
	const more, offset = 0x2000, 0x1fff
	f := binary.BigEndian.Uint16(ip[6:])
	h.fragment, h.first = f&(more|offset) != 0, f&offset == 0
	h.fragID = uint32(binary.BigEndian.Uint16(ip[4:]))
	if h.first {
		h.l4 = off + size
	}
	return dropNone
}

// Extension headers of IPv6 (RFC 8200) and what ends their chain.
const (
	extHopByHop = 0
	extRouting  = 43
	extFragment = 44
	extAuth     = 51
	extDest     = 60
	maxExt      = 8 // more in one packet than any honest sender's
)

// parse6 is for IPv6 (RFC 8200).
func (h *ipHeader) parse6(b []byte, off, length int) reason {
	if off+ip6Len > len(b) {
		return dropIPMalformed
	}
	ip := b[off:]
	h.end = off + ip6Len + int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || h.end > length {
		return dropIPMalformed
	}
	h.src, h.dst = table.Key16((*[16]byte)(ip[8:24])), table.Key16((*[16]byte)(ip[24:40]))
	h.group = ip[24] == 0xff
	return h.extensions(b, ip[6], off+ip6Len)
}

// extensions follows the chain of extension headers from offset at on.
func (h *ipHeader) extensions(b []byte, next uint8, at int) reason {
	h.first = true
	for range maxExt {
		if at > h.end {
			return dropIPMalformed
		}
		size, known := 8, true
		switch next {
		case extHopByHop, extRouting, extDest, extAuth, extFragment:
		default:
			known = false
		}
		if !known {
			h.proto, h.l4 = next, at
			return dropNone
		}
		if at+size > h.end {
			return dropIPMalformed
		}
		if at+size > len(b) {
			return dropLongHeaders
		}
		x := b[at:]
		switch next {
		case extFragment:
			f := binary.BigEndian.Uint16(x[2:])
			h.fragment, h.first = f&^6 != 0, f>>3 == 0
			h.fragID = binary.BigEndian.Uint32(x[4:])
			if !h.first {
				h.proto = x[0]
				return dropNone
			}
		case extAuth:
			size = (int(x[1]) + 2) * 4
		default:
			size = (int(x[1]) + 1) * 8
		}
		next, at = x[0], at+size
	}
	return dropIPMalformed
}
