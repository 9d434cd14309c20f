package modeswitch

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// tcpFrame makes an IPv4/TCP frame with a partial checksum.
func tcpFrame(srcPort, dstPort uint16, seq uint32, payload []byte) []byte {
	b := make([]byte, 54, 54+len(payload))
	header.Ethernet(b).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(theirMAC), DstAddr: tcpip.LinkAddress(ourMAC), Type: ipv4.ProtocolNumber,
	})
	ip := header.IPv4(b[14:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip) + len(payload)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: theirIP, DstAddr: ourIP,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	header.TCP(b[34:]).Encode(&header.TCPFields{
		SrcPort: srcPort, DstPort: dstPort, SeqNum: seq, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck,
	})
	return append(b, payload...)
}

// recorder is a network endpoint that keeps what it receives.
type recorder struct {
	null
	packets [][]byte
}

func (r *recorder) HandlePacket(pkt *stack.PacketBuffer) {
	v := pkt.Data().AsRange().ToView()
	r.packets = append(r.packets, append([]byte(nil), v.AsSlice()...))
	v.Release()
}

func recording(t *testing.T, join bool) (*receiver, *recorder) {
	t.Helper()
	h := newHost(t, true)
	s, err := newSink(h.stack, nicID, null{}, join)
	require.NoError(t, err)
	rec := &recorder{}
	s.ipv4 = rec
	return &receiver{e: h.ep, q: h.ep.first.queues[0], sink: s}, rec
}

// Segments of a batch that follow each other become one packet, flow by flow,
// and none is left behind.
func TestSegmentsAreJoined(t *testing.T) {
	const flows, each, size = 3, 4, minJoin
	for _, join := range []bool{true, false} {
		r, rec := recording(t, join)
		var batch [][]byte
		for i := range each {
			for f := range flows { // their port numbers' sums are equal: one bucket of gro
				data := bytes.Repeat([]byte{byte(16*f + i)}, size)
				batch = append(batch, vnet(vnetNeedsCsum, tcpFrame(uint16(1000+f), uint16(80-f), uint32(i*size), data)))
			}
		}
		r.handle(batch)
		if !join {
			require.Len(t, rec.packets, flows*each)
			continue
		}
		require.Len(t, rec.packets, flows)
		for _, p := range rec.packets {
			require.Equal(t, uint16(40+each*size), header.IPv4(p).TotalLength())
			first := p[40]
			for i := range each {
				require.Equal(t, bytes.Repeat([]byte{first + byte(i)}, size), p[40+i*size:40+(i+1)*size])
			}
		}
	}
}

// A short segment goes on alone, but not before those that it follows.
func TestShortSegmentsKeepOrder(t *testing.T) {
	r, rec := recording(t, true)
	long := make([]byte, minJoin)
	r.handle([][]byte{
		vnet(vnetNeedsCsum, tcpFrame(1, 2, 0, long)),
		vnet(vnetNeedsCsum, tcpFrame(1, 2, minJoin, long)),
		vnet(vnetNeedsCsum, tcpFrame(1, 2, 2*minJoin, []byte("end"))),
	})
	require.Len(t, rec.packets, 2)
	require.Len(t, rec.packets[0], 40+2*minJoin)
	require.Equal(t, []byte("end"), rec.packets[1][40:])
}

// What follows the IP packet in a frame is no part of the segment.
func TestPaddingIsCutOff(t *testing.T) {
	r, rec := recording(t, true)
	data := bytes.Repeat([]byte{7}, minJoin)
	var batch [][]byte
	for i := range 3 {
		padded := append(tcpFrame(1, 2, uint32(i*minJoin), data), "padpad"...)
		batch = append(batch, vnet(vnetNeedsCsum, padded))
	}
	r.handle(append(batch, vnet(0, append(tcpFrame(1, 2, 9, []byte{1}), "pad"...))))
	require.Len(t, rec.packets, 2)
	require.Equal(t, bytes.Repeat([]byte{7}, 3*minJoin), rec.packets[0][40:])
	require.Equal(t, []byte{1}, rec.packets[1][40:])
}

func TestTrimUnsound(t *testing.T) {
	good := tcpFrame(1, 2, 3, []byte("data"))
	for name, change := range map[string]func([]byte){
		"version":      func(b []byte) { b[14] = 0x65 },
		"header":       func(b []byte) { b[14] = 0x44 },
		"total length": func(b []byte) { b[17]++ },
		"too short":    func(b []byte) { b[16], b[17] = 0, 19 },
	} {
		frame := append([]byte(nil), good...)
		change(frame)
		trimmed, sound := trim(ipv4.ProtocolNumber, frame)
		require.False(t, sound, name)
		require.Equal(t, frame, trimmed, name)
	}
}
