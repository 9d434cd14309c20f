package netserver

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// checkIP checks an answer's Ethernet and IP headers and, by gVisor's code,
// its checksums, and returns what follows them.
func checkIP(t testing.TB, b []byte, from, to netip.Addr, proto uint8) []byte {
	t.Helper()
	require.Equal(t, peerMAC[:], b[:6])
	require.Equal(t, ourMAC[:], b[6:12])
	var src, dst tcpip.Address
	var body []byte
	if from.Is4() {
		ip := header.IPv4(b[ethLen:])
		require.True(t, ip.IsValid(len(b)-ethLen))
		require.True(t, ip.IsChecksumValid())
		require.Equal(t, proto, ip.Protocol())
		require.EqualValues(t, len(b)-ethLen, ip.TotalLength())
		src, dst, body = ip.SourceAddress(), ip.DestinationAddress(), ip.Payload()
	} else {
		ip := header.IPv6(b[ethLen:])
		require.True(t, ip.IsValid(len(b)-ethLen))
		require.Equal(t, proto, ip.NextHeader())
		src, dst, body = ip.SourceAddress(), ip.DestinationAddress(), b[ethLen+header.IPv6MinimumSize:]
		require.EqualValues(t, len(body), ip.PayloadLength())
	}
	require.Equal(t, from.AsSlice(), src.AsSlice())
	require.Equal(t, to.AsSlice(), dst.AsSlice())
	var pseudo uint16
	if proto != protoICMP {
		pseudo = header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto), src, dst, uint16(len(body)))
	}
	require.EqualValues(t, 0xffff, checksum.Checksum(body, pseudo), "transport checksum")
	return body
}

func TestARPAnswer(t *testing.T) {
	f := newForwarder(t)
	b := f.arpAnswer(make([]byte, maxAnswer), parsed(t, arp(arpRequest, peerMAC, peer4, shared4)))
	require.Equal(t, arp(arpReply, ourMAC, shared4, peer4)[12:32], b[12:32])
	require.Equal(t, peerMAC[:], b[:6])
	require.Equal(t, ourMAC[:], b[6:12])
	require.Equal(t, peerMAC[:], b[32:38])
	require.Equal(t, peer4.AsSlice(), b[38:42])
}

func TestNDPAnswer(t *testing.T) {
	f := newForwarder(t)
	for _, from := range []netip.Addr{peer6, netip.IPv6Unspecified()} {
		q := in(from, netip.MustParseAddr("ff02::1:ff00:2"), protoICMPv6, solicit(shared6)).bytes()
		b := f.ndpAnswer(make([]byte, maxAnswer), parsed(t, q), q)
		to, solicited := from, byte(0x40)
		if !from.IsValid() || from.IsUnspecified() {
			to, solicited = netip.MustParseAddr("ff02::1"), 0
			require.Equal(t, []byte{0x33, 0x33, 0, 0, 0, 1}, b[:6])
			copy(b, peerMAC[:])
		}
		m := checkIP(t, b, shared6, to, protoICMPv6)
		require.EqualValues(t, 255, b[ethLen+7], "hop limit (RFC 4861, 7.1.2)")
		require.Equal(t, byte(icmp6Advertise), m[0])
		require.Equal(t, solicited, m[4]&0x40)
		require.Equal(t, shared6.AsSlice(), m[8:24])
		require.Equal(t, append([]byte{2, 1}, ourMAC[:]...), m[24:32])
	}
}

// TestResetAnswer goes by the table in RFC 9293, 3.10.7.1.
func TestResetAnswer(t *testing.T) {
	f := newForwarder(t)
	for _, c := range []struct {
		flags header.TCPFlags
		data  int
		want  header.TCPFields
	}{
		{header.TCPFlagSyn, 0, header.TCPFields{AckNum: 1001, Flags: header.TCPFlagRst | header.TCPFlagAck}},
		{header.TCPFlagFin, 10, header.TCPFields{AckNum: 1011, Flags: header.TCPFlagRst | header.TCPFlagAck}},
		{header.TCPFlagAck, 10, header.TCPFields{SeqNum: 77, Flags: header.TCPFlagRst}},
		{header.TCPFlagSyn | header.TCPFlagAck, 0, header.TCPFields{SeqNum: 77, Flags: header.TCPFlagRst}},
	} {
		for _, a := range [][2]netip.Addr{{peer4, shared4}, {peer6, shared6}} {
			q := in(a[0], a[1], protoTCP, append(tcp(5, 82, c.flags), make([]byte, c.data)...)).bytes()
			s := header.TCP(checkIP(t, f.resetAnswer(make([]byte, maxAnswer), parsed(t, q), q), a[1], a[0], protoTCP))
			require.EqualValues(t, 82, s.SourcePort())
			require.EqualValues(t, 5, s.DestinationPort())
			require.Equal(t, c.want.SeqNum, s.SequenceNumber())
			require.Equal(t, c.want.AckNum, s.AckNumber())
			require.Equal(t, c.want.Flags, s.Flags())
		}
	}
	q := in(peer4, shared4, protoTCP, tcp(5, 82, header.TCPFlagRst)).bytes()
	require.Nil(t, f.resetAnswer(make([]byte, maxAnswer), parsed(t, q), q), "a reset is not answered")
}

func TestPortAnswer(t *testing.T) {
	f := newForwarder(t)
	for _, size := range []int{0, 1, 60, 1000} {
		q := in(peer4, shared4, protoUDP, udp(5, 82, make([]byte, size)...)).bytes()
		m := checkIP(t, f.portAnswer(make([]byte, maxAnswer), parsed(t, q), q), shared4, peer4, protoICMP)
		require.Equal(t, []byte{icmpUnreachable, 3}, m[:2])
		require.Equal(t, q[ethLen:min(len(q), ethLen+maxQuote)], m[8:])

		q = in(peer6, shared6, protoUDP, udp(5, 82, make([]byte, size)...)).bytes()
		m = checkIP(t, f.portAnswer(make([]byte, maxAnswer), parsed(t, q), q), shared6, peer6, protoICMPv6)
		require.Equal(t, []byte{icmp6Unreachable, 4}, m[:2])
	}
}

// TestEchoAnswer also checks fragments: their checksum is that of the whole.
func TestEchoAnswer(t *testing.T) {
	f := newForwarder(t)
	for _, data := range [][]byte{{}, {1}, {0xff, 0xff, 0xf8, 0}, make([]byte, 1000)} {
		whole := icmp(icmpEcho, 0, 0xf7ff, data...)
		q := in(peer4, shared4, protoICMP, whole).bytes()
		f.turnRound(q, parsed(t, q), true)
		m := checkIP(t, q, shared4, peer4, protoICMP)
		require.Equal(t, byte(icmpEchoReply), m[0])
		require.Equal(t, whole[4:], m[4:])
	}
	six := icmp(icmp6Echo, 0, 3, 1, 2, 3)
	binary.BigEndian.PutUint16(six[2:], 0)
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, tcpip.AddrFrom16(peer6.As16()), tcpip.AddrFrom16(shared6.As16()), uint16(len(six)))
	binary.BigEndian.PutUint16(six[2:], ^checksum.Checksum(six, sum))
	q := in(peer6, shared6, protoICMPv6, six).bytes()
	f.turnRound(q, parsed(t, q), true)
	require.Equal(t, byte(icmp6EchoReply), checkIP(t, q, shared6, peer6, protoICMPv6)[0])
}
