package modeswitch

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"pgregory.net/rapid"

	"junction/switch/queuetest"
)

// bigSegment makes a TCP packet as the stack hands it to a device that cuts.
func bigSegment(ep *Endpoint, v6 bool, mss uint16, options int, flags header.TCPFlags, payload []byte) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: 14 + 40 + 60, Payload: buffer.MakeWithData(payload),
	})
	hl := header.TCPMinimumSize + options
	tcp := header.TCP(pkt.TransportHeader().Push(hl))
	tcp.Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, SeqNum: 0xfffffff0, AckNum: 7, DataOffset: uint8(hl), Flags: flags, WindowSize: 100})
	pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: header.TCPChecksumOffset, MSS: mss, L3HdrLen: header.IPv4MinimumSize, MaxSize: 1 << 16}
	pkt.NetworkProtocolNumber = ipv4.ProtocolNumber
	length := uint16(hl + len(payload))
	if v6 {
		pkt.GSOOptions.Type, pkt.GSOOptions.L3HdrLen = stack.GSOTCPv6, header.IPv6MinimumSize
		pkt.NetworkProtocolNumber = ipv6.ProtocolNumber
		src, dst := tcpip.AddrFrom16([16]byte{0xfd, 15: 1}), tcpip.AddrFrom16([16]byte{0xfd, 15: 2})
		header.IPv6(pkt.NetworkHeader().Push(header.IPv6MinimumSize)).Encode(&header.IPv6Fields{
			PayloadLength: length, TransportProtocol: header.TCPProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst,
		})
		tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, length))
	} else {
		ip := header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize))
		ip.Encode(&header.IPv4Fields{
			TotalLength: header.IPv4MinimumSize + length, ID: 9, TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: ourIP, DstAddr: theirIP,
		})
		ip.SetChecksum(^ip.CalculateChecksum())
		tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, ourIP, theirIP, length))
	}
	pkt.EgressRoute.LocalLinkAddress, pkt.EgressRoute.RemoteLinkAddress = tcpip.LinkAddress(ourMAC), tcpip.LinkAddress(theirMAC)
	ep.AddHeader(pkt)
	return pkt
}

// requireSegment checks one frame as a receiver would, and returns its TCP part.
func requireSegment(t require.TestingT, h vnetHdr, frame []byte, v6, partial bool) header.TCP {
	b := frame[14:]
	var tcp header.TCP
	var src, dst tcpip.Address
	if v6 {
		ip := header.IPv6(b)
		require.True(t, ip.IsValid(len(b)))
		require.EqualValues(t, len(b)-40, ip.PayloadLength())
		tcp, src, dst = header.TCP(b[40:]), ip.SourceAddress(), ip.DestinationAddress()
	} else {
		ip := header.IPv4(b)
		require.True(t, ip.IsValid(len(b)) && ip.IsChecksumValid())
		require.EqualValues(t, len(b), ip.TotalLength())
		tcp, src, dst = header.TCP(b[20:]), ip.SourceAddress(), ip.DestinationAddress()
	}
	if partial {
		require.Equal(t, vnetHdr{flags: vnetNeedsCsum, csumStart: uint16(len(frame) - len(tcp)), csumOff: header.TCPChecksumOffset}, h)
		sum := checksum.Checksum(tcp, 0) // what a device does
		tcp.SetChecksum(^sum)
	} else {
		require.Equal(t, vnetHdr{}, h)
	}
	require.True(t, tcp.IsChecksumValid(src, dst, checksum.Checksum(tcp.Payload(), 0), uint16(len(tcp.Payload()))))
	return tcp
}

// Segments that were meant for a device that cuts them are right for one that
// does not, full at times: in order, each byte once, flags where they belong.
func TestSegmentsForAnotherDevice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6, partial := rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "partial")
		mss := rapid.IntRange(1, 1400).Draw(t, "mss")
		n := rapid.IntRange(0, 20*mss).Draw(t, "bytes")
		options := 4 * rapid.IntRange(0, 10).Draw(t, "options")
		slots := rapid.IntRange(1, 8).Draw(t, "slots")
		q, wire := queuetest.Pair(queuetest.Options{Slots: slots})
		defer wire.Close()
		ep, err := New(Options{Backend: Backend{Queues: []Queue{q}, MAC: ourMAC, MTU: 1500, TXChecksum: partial}})
		require.NoError(t, err)
		defer ep.Close()
		payload := make([]byte, n)
		for i := range payload {
			payload[i] = byte(i ^ i>>8)
		}
		pkt := bigSegment(ep, v6, uint16(mss), options, header.TCPFlagFin|header.TCPFlagPsh|header.TCPFlagAck|tcpCWR, payload)
		defer pkt.DecRef()
		require.Nil(t, ep.QDisc().WritePacket(pkt))
		var got []byte
		batch := make([][]byte, slots)
		for count := max(1, (n+mss-1)/mss); count > 0; {
			k, err := wire.Receive(batch)
			require.NoError(t, err)
			for _, b := range batch[:k] {
				h, frame, ok := decodeVnet(b)
				require.True(t, ok)
				tcp := requireSegment(t, h, frame, v6, partial)
				require.EqualValues(t, uint32(0xfffffff0+len(got)), tcp.SequenceNumber())
				require.Equal(t, len(got) == 0, tcp.Flags()&tcpCWR != 0, "CWR")
				got = append(got, tcp.Payload()...)
				require.Equal(t, len(got) == n, tcp.Flags()&header.TCPFlagFin != 0, "FIN")
				count--
			}
			wire.Release()
			if k == 0 {
				require.NoError(t, wire.Wait())
			}
		}
		require.True(t, bytes.Equal(payload, got))
	})
}

// What no stack sends is refused, not cut.
func TestSegmentOfNonsense(t *testing.T) {
	ep, _ := wireEndpoint(t, nil)
	pkt := bigSegment(ep, false, 100, 0, 0, make([]byte, 1000))
	defer pkt.DecRef()
	header.TCP(pkt.TransportHeader().Slice()).SetDataOffset(60)
	binary.BigEndian.PutUint16(pkt.TransportHeader().Slice()[4:], 0)
	pkt.GSOOptions.L3HdrLen = 1100
	require.NotNil(t, ep.QDisc().WritePacket(pkt))
	require.Equal(t, map[string]uint64{"tx_queue_error": 1}, ep.Stats().Drops)
}
