package modeswitch

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const udpPort = 9

// udpFrame makes an IPv4/UDP frame to udpPort with all checksums right.
func udpFrame(payload int) []byte {
	b := make([]byte, 14+20+8+payload)
	header.Ethernet(b).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(theirMAC), DstAddr: tcpip.LinkAddress(ourMAC), Type: ipv4.ProtocolNumber,
	})
	ip := header.IPv4(b[14:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(udp.ProtocolNumber), SrcAddr: theirIP, DstAddr: ourIP,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(ip[20:])
	u.Encode(&header.UDPFields{SrcPort: 1234, DstPort: udpPort, Length: uint16(len(u))})
	for i := range u.Payload() {
		u.Payload()[i] = byte(i)
	}
	sum := header.PseudoHeaderChecksum(udp.ProtocolNumber, theirIP, ourIP, uint16(len(u)))
	u.SetChecksum(^checksum.Checksum(u, sum))
	return b
}

// vnet puts a vnet header with the given flags in front of a frame.
func vnet(flags uint8, frame []byte) []byte {
	b := vnetBuffer(flags, 0, 0, 0, 34, 6, len(frame))
	copy(b[VnetHdrLen:], frame)
	return b
}

// edit returns a frame changed at one byte, its IPv4 checksum made right if fix.
func edit(frame []byte, at int, to byte, fix bool) []byte {
	b := append([]byte(nil), frame...)
	b[at] = to
	if ip := header.IPv4(b[14:]); fix {
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
	}
	return b
}

func (h *host) listenUDP(t testing.TB) tcpip.Endpoint {
	t.Helper()
	ep, err := h.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &waiter.Queue{})
	require.Nil(t, err)
	require.Nil(t, ep.Bind(tcpip.FullAddress{Port: udpPort}))
	t.Cleanup(ep.Close)
	return ep
}

func TestReceiveDropsByReason(t *testing.T) {
	good := udpFrame(10)
	for _, c := range []struct {
		reason string
		buf    []byte
	}{
		{"rx_short", nil},
		{"rx_short", make([]byte, VnetHdrLen)},
		{"rx_short", vnet(0, good[:13])},
		{"rx_long", make([]byte, VnetHdrLen+maxFrame+1)},
		{"rx_bad_vnet", vnetBuffer(0, 77, 0, 0, 0, 0, 60)},
		{"rx_other_host", vnet(0, edit(good, 5, 9, false))},
		{"rx_unknown_protocol", vnet(0, edit(good, 12, 0x88, false))},
	} {
		h := newHost(t, false)
		require.NoError(t, h.wire.Inject(c.buf))
		require.Equal(t, map[string]uint64{c.reason: 1}, h.settle(t, 1).Drops)
	}
}

// The device's word on a checksum counts for exactly the packets it can be
// true of.
func TestReceiveChecksums(t *testing.T) {
	good := udpFrame(100)
	partial := edit(good, 14+20+6, good[14+20+6]^0x55, false)
	for _, c := range []struct {
		name     string
		trusted  bool
		buf      []byte
		received bool
	}{
		{"full", false, vnet(0, good), true},
		{"full, trusted device", true, vnet(0, good), true},
		{"wrong", false, vnet(0, partial), false},
		{"wrong, trusted device that says nothing", true, vnet(0, partial), false},
		{"partial", true, vnet(vnetNeedsCsum, partial), true},
		{"checked", true, vnet(vnetDataValid, partial), true},
		{"partial, untrusted device", false, vnet(vnetNeedsCsum, partial), false},
		{"checked, wrong IPv4 header", true, vnet(vnetDataValid, edit(good, 14+8, 3, false)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, c.trusted)
			ep := h.listenUDP(t)
			require.NoError(t, h.wire.Inject(c.buf))
			h.settle(t, 1)
			got := ep.Readiness(waiter.ReadableEvents) != 0
			require.Equal(t, c.received, got)
		})
	}
}

// A fragment's checksum is over all of the datagram; the device cannot know it.
func TestReceiveFragmentsAreChecked(t *testing.T) {
	for _, wrong := range []byte{0, 0x55} {
		h := newHost(t, true)
		ep := h.listenUDP(t)
		whole := udpFrame(32)
		whole[14+20+6] ^= wrong
		first, second := append([]byte(nil), whole[:14+20+16]...), append(append([]byte(nil), whole[:14+20]...), whole[14+20+16:]...)
		for i, f := range [][]byte{first, second} {
			ip := header.IPv4(f[14:])
			ip.SetTotalLength(uint16(len(ip)))
			ip.SetFlagsFragmentOffset(uint8(1-i), uint16(16*i))
			require.NoError(t, h.wire.Inject(vnet(vnetDataValid, edit(f, 14+4, 1, true))))
		}
		h.settle(t, 2)
		require.Equal(t, wrong == 0, ep.Readiness(waiter.ReadableEvents) != 0)
	}
}

func TestReceiveCountsForTheNIC(t *testing.T) {
	h := newHost(t, false)
	require.NoError(t, h.wire.Inject(vnet(0, udpFrame(10))))
	h.settle(t, 1)
	info := h.stack.NICInfo()[nicID]
	require.Equal(t, uint64(1), info.Stats.Rx.Packets.Value())
	require.Equal(t, uint64(38), info.Stats.Rx.Bytes.Value())
	require.Equal(t, uint64(1), h.stack.Stats().NICs.Rx.Packets.Value())
}

// FuzzReceive feeds hostile buffers through the whole receive path.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add(vnet(0, udpFrame(10)), false)
	f.Add(vnet(vnetNeedsCsum, udpFrame(10)), true)
	f.Add(vnetBuffer(vnetNeedsCsum, vnetGSOTCPv4, 54, 1448, 34, 16, 3000), true)
	h := map[bool]*host{true: newHost(f, true), false: newHost(f, false)}
	sinks := make(map[bool]*sink)
	for k, v := range h {
		v.listenUDP(f)
		v.ep.mu.Lock()
		s, err := newSink(v.stack, nicID, v.ep.dispatcher, true)
		v.ep.mu.Unlock()
		require.NoError(f, err)
		sinks[k] = s
	}
	f.Fuzz(func(t *testing.T, buf []byte, trusted bool) {
		r := receiver{e: h[trusted].ep, q: h[trusted].ep.first.queues[0], sink: sinks[trusted]}
		before := h[trusted].ep.Stats()
		r.handle([][]byte{buf, buf, buf})
		after := h[trusted].ep.Stats()
		require.Equal(t, before.RxPackets+3, after.RxPackets)
		requireConserved(t, after)
	})
}
