package netserver

import (
	"encoding/binary"

	"junction/ipc"
)

// GSOMax is the largest TCP packet, in bytes without its Ethernet header, that
// an instance may send for segmentation. Between instances it stays whole; for
// the wire the server cuts it if the uplink cannot.
const GSOMax = 65536

// Offsets in the TCP header (RFC 9293) and the UDP header.
const (
	tcpLen      = 20
	tcpSeq      = 4
	tcpFlags    = 13
	tcpChecksum = 16
	udpChecksum = 6

	flagFin, flagPush, flagCWR = 1, 8, 0x80
)

// toWire puts the frame in w.hdr and parts, of which head is the first, onto the
// wire: cut, and with its checksum, as far as the uplink does not do that.
func (w *worker) toWire(head []byte, parts [][]byte) {
	o, able := w.s.uplinkFor(&w.pkt), w.s.offloads
	switch {
	case w.hdr[1] != 0 && able.GSOMax == 0:
		w.cut(o, head, parts)
		return
	case w.hdr[0] != 0:
		field, ok := w.sumField(head)
		if !ok {
			w.dropped(dropVnet)
			return
		}
		if !able.TXChecksum {
			w.finish(head, parts, w.pkt.ip.l4, field)
		}
	}
	w.put(o, parts, true)
}

// cut sends a TCP packet in segments (as Linux's tcp_gso_segment does). What
// does not fit together is dropped: it came from an instance.
func (w *worker) cut(o *outlet, head []byte, parts [][]byte) {
	h := &w.pkt.ip
	size, data := int(binary.LittleEndian.Uint16(w.hdr[4:])), h.l4+tcpLen
	if v6 := w.hdr[1]&^vnetGSOECN == vnetGSOTCPv6; h.l4 == 0 || h.fragment || h.proto != protoTCP || v6 != h.v6 || data > len(head) {
		w.dropped(dropVnet)
		return
	}
	data = h.l4 + int(head[h.l4+12]>>4)*4
	switch {
	case data < h.l4+tcpLen || data > min(len(head), h.end):
		w.dropped(dropVnet)
		return
	case min(h.end, data+size) > w.s.maxFrame:
		w.dropped(dropLong)
		return
	}
	ecn := head[h.l4+tcpFlags] & flagCWR
	for from := data; ; from += size {
		to := min(from+size, h.end)
		s := w.segment[:copy(w.segment[:], head[:data])]
		w.cutHead(s, from-data, to-from, (from-data)/size)
		if to < h.end {
			s[h.l4+tcpFlags] &^= flagFin | flagPush
		}
		if from > data {
			s[h.l4+tcpFlags] &^= ecn
		}
		pieces := between(append(w.pieces[:0], s), parts, from, to)
		w.hdr = [ipc.VnetHdrLen]byte{0: vnetNeedsCsum}
		binary.LittleEndian.PutUint16(w.hdr[6:], uint16(h.l4))
		binary.LittleEndian.PutUint16(w.hdr[8:], tcpChecksum)
		if !w.s.offloads.TXChecksum {
			w.finish(s, pieces, h.l4, tcpChecksum)
		}
		w.put(o, pieces, true)
		if to == h.end {
			return
		}
		w.batch.Made++
	}
}

// cutHead makes the headers in s those of the segment number i, with n bytes from
// offset off of the payload, and a partial checksum.
func (w *worker) cutHead(s []byte, off, n, i int) {
	h, be := &w.pkt.ip, binary.BigEndian
	ip, l4 := s[h.l3:], s[h.l4:]
	length := len(l4) + n
	be.PutUint32(l4[tcpSeq:], be.Uint32(l4[tcpSeq:])+uint32(off))
	addresses := ip[12:20]
	if h.v6 {
		addresses = ip[8:40]
		be.PutUint16(ip[4:], uint16(h.l4-h.l3-ip6Len+length))
	} else {
		be.PutUint16(ip[2:], uint16(h.l4-h.l3+length))
		be.PutUint16(ip[4:], be.Uint16(ip[4:])+uint16(i))
		be.PutUint16(ip[10:], 0)
		be.PutUint16(ip[10:], ^fold(sum(0, ip[:h.l4-h.l3])))
	}
	be.PutUint16(l4[tcpChecksum:], fold(sum(protoTCP+uint32(length), addresses)))
}

// sumField tells where behind the IP header the checksum of the frame in head is
// that is still to be made, if it is TCP's or UDP's and where they have it: whoever
// makes it would else write it over an address or a port that has been checked.
func (w *worker) sumField(head []byte) (field int, ok bool) {
	h := &w.pkt.ip
	switch h.proto {
	case protoTCP:
		field = tcpChecksum
	case protoUDP:
		field = udpChecksum
	}
	le := binary.LittleEndian
	if h.l4 == 0 || h.fragment || field == 0 || int(le.Uint16(w.hdr[6:])) != h.l4 || int(le.Uint16(w.hdr[8:])) != field || h.l4+field+2 > len(head) {
		return 0, false
	}
	return field, true
}

// finish puts the checksum of the frame in parts, from l4 on, into its field in
// head, which is the first part and has the sum of the pseudo-header there.
func (w *worker) finish(head []byte, parts [][]byte, l4, field int) {
	s, odd := uint32(0), false
	for _, p := range between(w.sums[:0], parts, l4, w.frameEnd(parts)) {
		n := uint32(fold(sum(0, p)))
		if odd {
			n = n>>8 | n&0xff<<8
		}
		s += n
		odd = odd != (len(p)%2 == 1)
	}
	c := ^fold(s)
	if c == 0 && field == udpChecksum {
		c = 0xffff // 0 says that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(head[l4+field:], c)
	w.hdr = [ipc.VnetHdrLen]byte{}
}

// frameEnd is where the packet in parts ends, of which the first has the headers.
func (w *worker) frameEnd(parts [][]byte) int {
	ip := parts[0][w.pkt.ip.l3:]
	if w.pkt.ip.v6 {
		return w.pkt.ip.l3 + ip6Len + int(binary.BigEndian.Uint16(ip[4:]))
	}
	return w.pkt.ip.l3 + int(binary.BigEndian.Uint16(ip[2:]))
}

// between appends to out the bytes from offset from to offset to of the
// concatenation of parts.
func between(out, parts [][]byte, from, to int) [][]byte {
	for _, p := range parts {
		a, b := min(max(from, 0), len(p)), min(max(to, 0), len(p))
		if a < b {
			out = append(out, p[a:b])
		}
		from, to = from-len(p), to-len(p)
	}
	return out
}
