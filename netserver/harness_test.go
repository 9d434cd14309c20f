package netserver

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"junction/portmap"
	"junction/portmap/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The test's addresses: two shared ones, a dedicated one of instance 3 for each
// family, and peers on the wire.
var (
	shared4    = netip.MustParseAddr("198.18.0.2")
	shared6    = netip.MustParseAddr("fd00::2")
	dedicated4 = netip.MustParseAddr("198.18.0.3")
	dedicated6 = netip.MustParseAddr("fd00::3")
	peer4      = netip.MustParseAddr("198.18.0.1")
	peer6      = netip.MustParseAddr("fd00::1")

	ourMAC  = mac{2, 0, 0, 0, 0, 1}
	peerMAC = mac{2, 0, 0, 0, 0, 9}

	one   = sender{id: 1, shared: 3} // owns TCP and UDP port 80 of the shared addresses
	two   = sender{id: 2, shared: 3} // owns ports 81
	three = sender{id: 3}
)

// newForwarder makes a forwarder over a table as a monitor would fill it.
func newForwarder(t testing.TB) *forwarder {
	t.Helper()
	for _, s := range []*sender{&one, &two, &three} {
		s.limit = new(limiter)
	}
	m, err := portmap.New(portmap.Options{Shared: []netip.Addr{shared4, shared6}, Unowned: table.Server, HashSeed: 1})
	require.NoError(t, err)
	for _, s := range []sender{one, two} {
		require.NoError(t, m.Join(portmap.Instance(s.id), portmap.Lease{Addrs: []netip.Addr{shared4, shared6}, Mode: table.Server}))
		for proto := range table.Protos {
			_, err := m.Bind(portmap.Instance(s.id), portmap.Request{
				Socket: portmap.Socket(proto), Proto: proto, Addr: netip.IPv6Unspecified(), Port: 79 + uint16(s.id),
			})
			require.NoError(t, err)
		}
	}
	require.NoError(t, m.Join(3, portmap.Lease{Addrs: []netip.Addr{dedicated4, dedicated6}, Mode: table.Server}))
	w, err := table.NewWriter(m.Geometry(), nil)
	require.NoError(t, err)
	w.Apply(m.Changes())
	file, err := w.ViewFile()
	require.NoError(t, err)
	view, err := table.OpenView(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	t.Cleanup(func() {
		require.NoError(t, view.Close())
		require.NoError(t, w.Close())
	})
	f := &forwarder{mac: ourMAC}
	f.table.Store(view)
	return f
}

// frame describes a frame to build.
type frame struct {
	from, to netip.Addr
	src, dst mac // default: from the side that from is on
	proto    uint8
	payload  []byte // of IP
	// Of a fragment: its offset in bytes, whether more follow, its datagram.
	offset int
	more   bool
	id     uint16
}

func (f frame) bytes() []byte {
	b := append(append([]byte{}, f.dst[:]...), f.src[:]...)
	if f.from.Is4() {
		b = append(b, 8, 0)
		ip := make(header.IPv4, header.IPv4MinimumSize)
		var flags uint8
		if f.more {
			flags = header.IPv4FlagMoreFragments
		}
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(ip) + len(f.payload)), TTL: 64, Protocol: f.proto, ID: f.id, Flags: flags, FragmentOffset: uint16(f.offset),
			SrcAddr: tcpip.AddrFrom4(f.from.As4()), DstAddr: tcpip.AddrFrom4(f.to.As4()),
		})
		ip.SetChecksum(^ip.CalculateChecksum())
		return append(append(b, ip...), f.payload...)
	}
	b = append(b, 0x86, 0xdd)
	next, body := f.proto, f.payload
	if f.more || f.offset > 0 {
		off := uint16(f.offset)
		if f.more {
			off |= 1
		}
		body = append([]byte{next, 0, byte(off >> 8), byte(off), 0, 0, byte(f.id >> 8), byte(f.id)}, body...)
		next = extFragment
	}
	ip := make(header.IPv6, header.IPv6MinimumSize)
	ip.Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(body)), TransportProtocol: tcpip.TransportProtocolNumber(next), HopLimit: 64,
		SrcAddr: tcpip.AddrFrom16(f.from.As16()), DstAddr: tcpip.AddrFrom16(f.to.As16()),
	})
	return append(append(b, ip...), body...)
}

// in is a frame from the wire, out one of an instance.
func in(from, to netip.Addr, proto uint8, payload []byte) frame {
	return frame{from: from, to: to, src: peerMAC, dst: ourMAC, proto: proto, payload: payload}
}

func out(from, to netip.Addr, proto uint8, payload []byte) frame {
	return frame{from: from, to: to, src: ourMAC, dst: peerMAC, proto: proto, payload: payload}
}

// udp is a datagram without checksum, tcp a segment with the given flags.
func udp(sport, dport uint16, data ...byte) []byte {
	u := make(header.UDP, header.UDPMinimumSize)
	u.Encode(&header.UDPFields{SrcPort: sport, DstPort: dport, Length: uint16(len(u) + len(data))})
	return append(u, data...)
}

func tcp(sport, dport uint16, flags header.TCPFlags) []byte {
	s := make(header.TCP, header.TCPMinimumSize)
	s.Encode(&header.TCPFields{SrcPort: sport, DstPort: dport, SeqNum: 1000, AckNum: 77, DataOffset: 20, Flags: flags, WindowSize: 100})
	return s
}

// icmp is a message of either version, its checksum right for IPv4.
func icmp(kind, code uint8, ident uint16, data ...byte) []byte {
	b := append([]byte{kind, code, 0, 0, byte(ident >> 8), byte(ident), 0, 1}, data...)
	s := ^checksum.Checksum(b, 0)
	b[2], b[3] = byte(s>>8), byte(s)
	return b
}

// parsed parses a frame that must be right.
func parsed(t testing.TB, b []byte) *packet {
	t.Helper()
	var p packet
	require.Equal(t, dropNone, p.parse(b[:min(len(b), headLen)], len(b)))
	return &p
}
