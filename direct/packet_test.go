package direct_test

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// segment describes a TCP or UDP packet for build.
type segment struct {
	dst, src   net.HardwareAddr
	to, from   netip.AddrPort
	proto      byte // 6 or 17
	payload    []byte
	partial    bool // leave the pseudo-header's sum in the checksum field
	corruption uint16
}

// build returns the Ethernet frame of s, and where its checksum starts and the
// field's offset from there.
func (s segment) build() (f []byte, start, offset int) {
	hdr, offset := 20, 16
	if s.proto == 17 {
		hdr, offset = 8, 6
	}
	l4 := make([]byte, hdr, hdr+len(s.payload))
	binary.BigEndian.PutUint16(l4, s.from.Port())
	binary.BigEndian.PutUint16(l4[2:], s.to.Port())
	if s.proto == 17 {
		binary.BigEndian.PutUint16(l4[4:], uint16(hdr+len(s.payload)))
	} else {
		l4[12], l4[13] = 5<<4, 0x10 // ACK
		binary.BigEndian.PutUint16(l4[14:], 65535)
	}
	l4 = append(l4, s.payload...)
	f = append(append(append(f, s.dst...), s.src...), 0, 0)
	from, to := s.from.Addr().AsSlice(), s.to.Addr().AsSlice()
	if s.from.Addr().Is4() {
		binary.BigEndian.PutUint16(f[12:], 0x0800)
		ip := make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, s.proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(l4)))
		copy(ip[12:], from)
		copy(ip[16:], to)
		binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
		f = append(f, ip...)
	} else {
		binary.BigEndian.PutUint16(f[12:], 0x86dd)
		ip := []byte{0x60, 0, 0, 0, byte(len(l4) >> 8), byte(len(l4)), s.proto, 64}
		f = append(append(append(f, ip...), from...), to...)
	}
	pseudo := append(append(append([]byte{}, from...), to...), 0, s.proto, byte(len(l4)>>8), byte(len(l4)))
	check := sum(pseudo)
	if !s.partial {
		check = ^sum(append(pseudo, l4...))
	}
	binary.BigEndian.PutUint16(l4[offset:], check+s.corruption)
	start = len(f)
	return append(f, l4...), start, offset
}

// complete fills in the checksum that a virtio_net_hdr asks for.
func complete(frame []byte, hdr []byte) {
	start := binary.LittleEndian.Uint16(hdr[6:])
	at := start + binary.LittleEndian.Uint16(hdr[8:])
	binary.BigEndian.PutUint16(frame[at:], ^sum(frame[start:]))
}

// sum returns the Internet checksum's sum (RFC 1071) of b, not complemented.
func sum(b []byte) uint16 {
	var s uint32
	for i, v := range b {
		s += uint32(v) << (8 * (1 - i%2))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
