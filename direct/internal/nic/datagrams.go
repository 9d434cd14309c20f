package nic

import "encoding/binary"

// gsoUDP is VIRTIO_NET_HDR_GSO_UDP_L4: several datagrams in one (virtio 1.2,
// 5.1.6). A TAP can refuse them; what a packet socket gets from a local sender
// is as the sender's kernel has it.
const gsoUDP = 5

// datagrams is a frame that stands for several datagrams of equal length, but
// for the last one. Header lengths: no options of IPv6.
type datagrams struct {
	frame    []byte // without virtio_net_hdr
	l4, at   int    // offsets of the UDP header, and of the payload that is next
	size, no int    // of a datagram's payload; number of the next
}

const (
	udpLen     = 8
	ipv4MinLen = 20
	ipv6Len    = 40
)

// begin takes a frame with its virtio_net_hdr, if it is one to be cut.
func (d *datagrams) begin(b []byte) bool {
	var h VnetHdr
	h.Parse((*[VnetHdrLen]byte)(b))
	f := b[VnetHdrLen:]
	if h.GSOType != gsoUDP || h.GSOSize == 0 || len(f) < EthHdrLen+ipv4MinLen {
		return false
	}
	l4 := EthHdrLen + ipv6Len
	if f[12] == 8 {
		l4 = EthHdrLen + int(f[EthHdrLen]&0xf)*4
	}
	if l4 < EthHdrLen+ipv4MinLen || l4+udpLen >= len(f) {
		return false
	}
	*d = datagrams{frame: f, l4: l4, at: l4 + udpLen, size: int(h.GSOSize)}
	return true
}

// left tells whether there are datagrams to come.
func (d *datagrams) left() bool { return d.at < len(d.frame) }

// next writes the next datagram, with its virtio_net_hdr and a partial checksum,
// to b and returns its length.
func (d *datagrams) next(b []byte) int {
	be, data := binary.BigEndian, d.l4+udpLen
	n := min(d.size, len(d.frame)-d.at)
	clear(b[:VnetHdrLen])
	b[0] = VnetNeedsCsum
	binary.LittleEndian.PutUint16(b[6:], uint16(d.l4))
	binary.LittleEndian.PutUint16(b[8:], 6)
	f := b[VnetHdrLen:]
	copy(f, d.frame[:data])
	copy(f[data:], d.frame[d.at:d.at+n])
	ip, length := f[EthHdrLen:d.l4], udpLen+n
	addresses := ip[12:20]
	if f[12] == 8 {
		be.PutUint16(ip[2:], uint16(len(ip)+length))
		be.PutUint16(ip[4:], be.Uint16(ip[4:])+uint16(d.no))
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], ^sum16(0, ip))
	} else {
		addresses = ip[8:40]
		be.PutUint16(ip[4:], uint16(length))
	}
	be.PutUint16(f[d.l4+4:], uint16(length))
	const protoUDP = 17
	be.PutUint16(f[d.l4+6:], sum16(protoUDP+uint32(length), addresses))
	d.at, d.no = d.at+n, d.no+1
	return VnetHdrLen + data + n
}

// sum16 adds the 16-bit words of b, an even number of bytes, to s (RFC 1071).
func sum16(s uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
