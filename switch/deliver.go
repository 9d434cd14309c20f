package modeswitch

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// maxFrame is the largest frame accepted: a full IPv6 payload with its headers.
const maxFrame = header.EthernetMinimumSize + header.IPv6MinimumSize + 65535

// maxView is the largest piece of a frame kept contiguous. It is one of the
// stack's pooled sizes and leaves no room, so that the pieces are not copied
// into each other.
const maxView = 32 << 10

// sink is where one queue's packets go: the network endpoints of the NIC. It
// belongs to the queue's receiver.
type sink struct {
	dispatcher       stack.NetworkDispatcher
	ipv4, ipv6, arp  stack.NetworkEndpoint
	nic, all         tcpip.NICPacketStats
	unknownL3, allL3 *tcpip.IntegralStatCounterMap

	// gro joins the segments of a batch where the device does not: bulk
	// receiving over AF_XDP at an MTU of 1500 is 3.5 times as fast.
	gro gro.GRO
	// joining: gro may hold packets.
	joining bool
	// handled counts the packets given to the stack.
	handled uint64
}

func newSink(s *stack.Stack, id tcpip.NICID, d stack.NetworkDispatcher, join bool) (*sink, error) {
	info, ok := s.SingleNICInfo(id)
	if !ok {
		return nil, fmt.Errorf("NIC %d does not exist", id)
	}
	k := &sink{
		dispatcher: d,
		nic:        info.Stats.Rx, all: s.Stats().NICs.Rx,
		unknownL3: info.Stats.UnknownL3ProtocolRcvdPacketCounts,
		allL3:     s.Stats().NICs.UnknownL3ProtocolRcvdPacketCounts,
	}
	k.gro.Init(join)
	k.gro.Dispatcher = k
	for _, p := range []struct {
		num tcpip.NetworkProtocolNumber
		ep  *stack.NetworkEndpoint
	}{{ipv4.ProtocolNumber, &k.ipv4}, {ipv6.ProtocolNumber, &k.ipv6}, {arp.ProtocolNumber, &k.arp}} {
		ep, err := s.GetNetworkEndpoint(id, p.num) // nil for a protocol that the stack has not
		if err != nil {
			return nil, fmt.Errorf("NIC %d: %s", id, err)
		}
		*p.ep = ep
	}
	return k, nil
}

// deliver hands one received buffer, vnet header and frame, to the stack, at
// the next flush at the latest. The frame is copied. ok is false when it was
// dropped, for the given reason. p is the path it came by.
func (k *sink) deliver(p *Path, buf []byte) (reason dropReason, ok bool) {
	e := p.e
	vh, frame, fits := decodeVnet(buf)
	if c := e.opts.Capture; c != nil && len(frame) > 0 {
		c.frame(frame)
	}
	switch {
	case len(frame) < header.EthernetMinimumSize:
		return dropRxShort, false
	case len(frame) > maxFrame:
		return dropRxLong, false
	case !fits:
		return dropRxBadVnet, false
	}
	kind, mine := packetType(frame, e.LinkAddress())
	if !mine {
		return dropRxOtherHost, false
	}
	proto := header.Ethernet(frame).Type()
	if proto == probeType {
		p.probed(frame)
		return dropRxProbe, false
	}
	k.count(len(frame) - header.EthernetMinimumSize)
	if k.endpoint(proto) == nil {
		k.unknownL3.Increment(uint64(proto))
		k.allL3.Increment(uint64(proto))
		return dropRxUnknown, false
	}
	frame, sound := trim(proto, frame)
	pkt := newPacket(frame)
	pkt.PktType = kind
	pkt.NetworkProtocolNumber = proto
	pkt.RXChecksumValidated = p.backend.RXTrusted && sound && vh.vouches(proto, frame)
	k.dispatcher.DeliverLinkPacket(proto, pkt)
	k.pass(pkt, frame)
	pkt.DecRef()
	return 0, true
}

// pass gives a packet to gro if it may be one of many, else to the stack.
func (k *sink) pass(pkt *stack.PacketBuffer, frame []byte) {
	switch {
	case !isTCP(pkt.NetworkProtocolNumber, frame):
		k.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
	case len(frame) < minJoin:
		k.flush() // what it may follow goes first
		k.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
	default:
		k.joining = true
		k.gro.Enqueue(pkt)
	}
}

// minJoin is the length of the shortest frame that is worth joining to others,
// in bytes. For IPv6, gro allocates memory for each.
const minJoin = 600

// isTCP reports whether a frame is TCP over IP without options; of others it
// may say either.
func isTCP(proto tcpip.NetworkProtocolNumber, frame []byte) bool {
	const at4, at6 = header.EthernetMinimumSize + 9, header.EthernetMinimumSize + 6
	switch {
	case proto == ipv4.ProtocolNumber && len(frame) > at4:
		return frame[at4] == uint8(header.TCPProtocolNumber)
	case proto == ipv6.ProtocolNumber && len(frame) > at6:
		return frame[at6] == uint8(header.TCPProtocolNumber)
	}
	return false
}

// flush hands over what gro still holds. Its own Flush takes one packet from
// each of its buckets.
func (k *sink) flush() {
	for before := k.handled - 1; k.joining && before != k.handled; {
		before = k.handled
		k.gro.Flush()
	}
	k.joining = false
}

// DeliverNetworkPacket implements stack.NetworkDispatcher, for gro.
func (k *sink) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	k.handled++
	k.endpoint(proto).HandlePacket(pkt)
}

// DeliverLinkPacket implements stack.NetworkDispatcher. It is not used: packet
// sockets see frames before gro does.
func (*sink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

func (k *sink) endpoint(proto tcpip.NetworkProtocolNumber) stack.NetworkEndpoint {
	switch proto {
	case ipv4.ProtocolNumber:
		return k.ipv4
	case ipv6.ProtocolNumber:
		return k.ipv6
	case arp.ProtocolNumber:
		return k.arp
	}
	return nil
}

// count does for the NIC's statistics what its own receive entry would do.
func (k *sink) count(bytes int) {
	k.nic.Packets.Increment()
	k.nic.Bytes.IncrementBy(uint64(bytes))
	k.all.Packets.Increment()
	k.all.Bytes.IncrementBy(uint64(bytes))
}

// packetType classifies a frame by its destination address; mine is false
// when it is another station's.
func packetType(frame []byte, me tcpip.LinkAddress) (t tcpip.PacketType, mine bool) {
	switch dst := frame[:header.EthernetAddressSize]; {
	case string(dst) == string(me):
		return tcpip.PacketHost, true
	case string(dst) == string(header.EthernetBroadcastAddress):
		return tcpip.PacketBroadcast, true
	case dst[0]&1 != 0:
		return tcpip.PacketMulticast, true
	}
	return tcpip.PacketOtherHost, false
}

// trim cuts off what follows the IP packet, such as the padding of short
// frames, which gro would take for payload. sound is false when the IP header
// cannot be right; the stack then drops the packet.
func trim(proto tcpip.NetworkProtocolNumber, frame []byte) (trimmed []byte, sound bool) {
	b := frame[header.EthernetMinimumSize:]
	n := len(b)
	switch proto {
	case ipv4.ProtocolNumber:
		if sound = header.IPv4(b).IsValid(n); sound {
			n = int(header.IPv4(b).TotalLength())
		}
	case ipv6.ProtocolNumber:
		if sound = header.IPv6(b).IsValid(n); sound {
			n = header.IPv6MinimumSize + int(header.IPv6(b).PayloadLength())
		}
	}
	return frame[:header.EthernetMinimumSize+n], sound
}

// vouches reports whether the device's word on the transport checksum holds
// for a packet with a sound header. The stack takes it for the IPv4 header's
// checksum too and, in a fragment, for all of the reassembled datagram. A
// partial checksum, which only local senders make, is never in a fragment.
func (h *vnetHdr) vouches(proto tcpip.NetworkProtocolNumber, frame []byte) bool {
	if h.flags&(vnetNeedsCsum|vnetDataValid) == 0 {
		return false
	}
	b := frame[header.EthernetMinimumSize:]
	if proto == ipv4.ProtocolNumber {
		ip := header.IPv4(b)
		return !ip.More() && ip.FragmentOffset() == 0 && ip.IsChecksumValid()
	}
	next := tcpip.TransportProtocolNumber(header.IPv6(b).NextHeader())
	return h.flags&vnetNeedsCsum != 0 || next == header.TCPProtocolNumber || next == header.UDPProtocolNumber
}

// newPacket copies a frame into a packet of pooled memory and consumes its
// Ethernet header.
func newPacket(frame []byte) *stack.PacketBuffer {
	var payload buffer.Buffer
	for rest := frame; len(rest) > 0; {
		n := min(len(rest), maxView)
		// Append fails only when it must copy; see maxView.
		_ = payload.Append(buffer.NewViewWithData(rest[:n]))
		rest = rest[n:]
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: payload})
	pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return pkt
}

// ParseHeader implements stack.LinkEndpoint.
func (*Endpoint) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}
