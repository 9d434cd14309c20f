package modeswitch

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"junction/direct"
)

// segmenter cuts TCP packets for a device that cannot, and fills in checksums
// for one that does not: of connections that were made while packets left by
// a device that does. It is slow, for it copies a packet first.
type segmenter struct {
	whole []byte // the packet, without gaps
	head  []byte // a segment's headers
	sent  int    // bytes of payload of the packet begun that the device has taken
}

// tcpPacket is where the parts of a TCP packet are.
type tcpPacket struct {
	v6       bool
	l4, data int // offsets of the TCP header and of the payload in the frame
	size     int // of a segment's payload at most
}

// parse finds the parts of a frame of which the vnet header says that it is to
// be cut or to be given a checksum.
func (s *segmenter) parse(gso *stack.GSO) (t tcpPacket, ok bool) {
	b := s.whole
	t = tcpPacket{v6: gso.Type == stack.GSOTCPv6, l4: ethernetLen + int(gso.L3HdrLen), size: int(gso.MSS)}
	if len(b) < t.l4+header.TCPMinimumSize {
		return t, false
	}
	t.data = t.l4 + int(header.TCP(b[t.l4:]).DataOffset())
	return t, t.size > 0 && t.data >= t.l4+header.TCPMinimumSize && t.data <= len(b)
}

// transmitCut sends a packet in segments. When the device is full it returns
// that, and goes on with the next segment when it is called again for the packet.
//
// +checklocks:q.txMu
func (q *queue) transmitCut(pkt *stack.PacketBuffer) error {
	s := &q.cut
	s.gather(pkt)
	t, ok := s.parse(&pkt.GSOOptions)
	if !ok {
		s.sent = 0
		return direct.ErrBadHeader
	}
	for {
		n := min(t.size, len(s.whole)-t.data-s.sent)
		if err := q.transmitSegment(t, n); err != nil {
			if !isFull(err) {
				s.sent = 0
			}
			return err
		}
		s.sent += n
		if t.data+s.sent == len(s.whole) {
			s.sent = 0
			q.tx.passed++
			return nil
		}
	}
}

func (s *segmenter) gather(pkt *stack.PacketBuffer) {
	s.whole = s.whole[:0]
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		k := min(skip, len(b))
		s.whole = append(s.whole, b[k:]...)
		skip -= k
	}
}

// transmitSegment sends the n bytes of payload that are next.
//
// +checklocks:q.txMu
func (q *queue) transmitSegment(t tcpPacket, n int) error {
	s := &q.cut
	payload := s.whole[t.data+s.sent : t.data+s.sent+n]
	s.segment(t, payload)
	q.hdr = [VnetHdrLen]byte{}
	if q.path.backend.TXChecksum {
		q.hdr[0] = vnetNeedsCsum
		binary.LittleEndian.PutUint16(q.hdr[6:], uint16(t.l4))
		binary.LittleEndian.PutUint16(q.hdr[8:], header.TCPChecksumOffset)
	} else {
		tcp := header.TCP(s.head[t.l4:])
		sum := checksum.Combine(tcp.Checksum(), checksum.Checksum(payload, 0))
		tcp.SetChecksum(0)
		tcp.SetChecksum(^checksum.Checksum(tcp, sum))
	}
	q.parts = append(q.parts[:0], s.head, payload)
	defer clear(q.parts)
	if err := q.Transmit(&q.hdr, q.parts); err != nil {
		return err
	}
	if c := q.path.e.opts.Capture; c != nil {
		c.frame(q.parts...)
	}
	return nil
}

// segment makes the headers of the next segment (RFC 9293; as Linux's
// tcp_gso_segment does), with a partial checksum.
func (s *segmenter) segment(t tcpPacket, payload []byte) {
	s.head = append(s.head[:0], s.whole[:t.data]...)
	length := t.data - t.l4 + len(payload) // of the TCP segment
	tcp := header.TCP(s.head[t.l4:])
	tcp.SetSequenceNumber(tcp.SequenceNumber() + uint32(s.sent))
	flags := tcp.Flags()
	if s.sent > 0 {
		flags &^= header.TCPFlags(tcpCWR)
	}
	if t.data+s.sent+len(payload) < len(s.whole) {
		flags &^= header.TCPFlagFin | header.TCPFlagPsh
	}
	tcp.SetFlags(uint8(flags))
	var src, dst tcpip.Address
	if t.v6 {
		ip := header.IPv6(s.head[ethernetLen:])
		ip.SetPayloadLength(uint16(t.l4 - ethernetLen - header.IPv6MinimumSize + length))
		src, dst = ip.SourceAddress(), ip.DestinationAddress()
	} else {
		ip := header.IPv4(s.head[ethernetLen:t.l4])
		ip.SetTotalLength(uint16(t.l4 - ethernetLen + length))
		ip.SetID(ip.ID() + uint16(s.sent/t.size))
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		src, dst = ip.SourceAddress(), ip.DestinationAddress()
	}
	tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(length)))
}

// tcpCWR is the flag "congestion window reduced" (RFC 3168).
const tcpCWR = 0x80
