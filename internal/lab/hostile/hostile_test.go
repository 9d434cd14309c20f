package hostile

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"pgregory.net/rapid"
)

func testTarget() Target {
	return Target{
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, FromMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		IPv4: netip.MustParseAddr("198.18.0.2"), FromIPv4: netip.MustParseAddr("198.18.0.66"),
		IPv6: netip.MustParseAddr("fd00:18::2"), FromIPv6: netip.MustParseAddr("fd00:18::66"),
		TCPPort: 80, UDPPort: 53,
	}
}

func newGenerator(t require.TestingT, seed uint64) *Generator {
	g, err := New(seed, testTarget())
	require.NoError(t, err)
	return g
}

func TestSameSeedSameFrames(t *testing.T) {
	a, b, c := newGenerator(t, 1), newGenerator(t, 1), newGenerator(t, 2)
	differ := 0
	for range 20 * int(numClasses) {
		ca, fa := a.Next()
		cb, fb := b.Next()
		_, fc := c.Next()
		require.Equal(t, ca, cb)
		require.Equal(t, fa, fb)
		if string(fa) != string(fc) {
			differ++
		}
	}
	require.Greater(t, differ, 10*int(numClasses))
}

// TestFramesCanBeSent checks, for any seed, what Send needs of a frame.
func TestFramesCanBeSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(t, rapid.Uint64().Draw(t, "seed"))
		for range 2 * int(numClasses) {
			class, f := g.Next()
			require.NotEmpty(t, f, class)
			if class == Giant {
				require.Greater(t, len(f), giantLeast)
				require.LessOrEqual(t, len(f), etherLen+65535)
			} else {
				require.LessOrEqual(t, len(f), maxFrame, class)
			}
			if class != Truncated {
				require.Equal(t, []byte(testTarget().MAC), f[:6], class)
			}
		}
	})
}

// TestGoodFramesAreGood has another implementation judge what is spoilt later.
func TestGoodFramesAreGood(t *testing.T) {
	g := newGenerator(t, 1)
	kinds := map[uint16]int{}
	for range 1000 {
		f := g.good()
		kind := binary.BigEndian.Uint16(f[12:])
		kinds[kind]++
		switch kind {
		case etherARP:
			require.True(t, header.ARP(f[etherLen:]).IsValid())
		case etherIPv4:
			p := header.IPv4(f[etherLen:])
			require.True(t, p.IsValid(len(p)))
			require.True(t, p.IsChecksumValid())
			goodTransport(t, p.Protocol(), p.SourceAddress(), p.DestinationAddress(), p.Payload())
		case etherIPv6:
			p := header.IPv6(f[etherLen:])
			require.True(t, p.IsValid(len(p)))
			goodTransport(t, p.NextHeader(), p.SourceAddress(), p.DestinationAddress(), p.Payload())
		}
	}
	require.Len(t, kinds, 3)
}

func goodTransport(t *testing.T, proto uint8, src, dst tcpip.Address, p []byte) {
	t.Helper()
	if proto == protoICMP {
		require.Equal(t, uint16(0xffff), checksum.Checksum(p, 0))
		return
	}
	pseudo := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto), src, dst, uint16(len(p)))
	require.Equal(t, uint16(0xffff), checksum.Checksum(p, pseudo), "protocol %d", proto)
}

// faults are what must be found among the frames of a class. A frame starts
// behind the Ethernet header here, or as a whole for faults of the link.
var faults = []struct {
	class Class
	name  string
	has   func(f []byte) bool
}{
	{Truncated, "shorter than an Ethernet header", func(f []byte) bool { return len(f) < etherLen }},
	{Truncated, "cut in the IP header", func(f []byte) bool { return len(f) > etherLen && len(f) < etherLen+ipv4Len }},
	{Truncated, "a long one", func(f []byte) bool { return len(f) > 500 }},
	{VLAN, "two tags", func(f []byte) bool { return len(f) > 22 && isTag(f[12:]) && isTag(f[16:]) }},
	{VLAN, "fifty tags", func(f []byte) bool { return len(f) > 212 && isTag(f[208:]) }},
	{VLAN, "nothing behind the tags", func(f []byte) bool { return len(f) >= 18 && isTag(f[len(f)-4:]) }},
	{ARP, "hardware length", func(f []byte) bool { return len(f) > etherLen+4 && f[etherLen+4] != 6 }},
	{ARP, "protocol length", func(f []byte) bool { return len(f) > etherLen+5 && f[etherLen+5] != 4 }},
	{ARP, "cut off", func(f []byte) bool { return len(f) < etherLen+28 }},
	{IPv4Header, "short header length", func(f []byte) bool { return f[etherLen]&15 < 5 }},
	{IPv4Header, "long header length", func(f []byte) bool { return f[etherLen]&15 == 15 }},
	{IPv4Header, "version", func(f []byte) bool { return f[etherLen]>>4 != 4 }},
	{IPv4Header, "total length below the header", func(f []byte) bool { return total4(f) < ipv4Len }},
	{IPv4Header, "total length beyond the frame", func(f []byte) bool { return total4(f) > len(f)-etherLen }},
	{IPv4Header, "checksum", func(f []byte) bool { return checksum.Checksum(f[etherLen:etherLen+ipv4Len], 0) != 0xffff }},
	{IPv4Options, "length 0", func(f []byte) bool { return f[etherLen+21] == 0 }},
	{IPv4Options, "beyond the header", func(f []byte) bool { return int(f[etherLen+21]) > int(f[etherLen]&15)*4-20 }},
	{IPv4Fragments, "first", func(f []byte) bool { return fragment(f)&0x1fff == 0 && fragment(f)&0x2000 != 0 }},
	{IPv4Fragments, "later", func(f []byte) bool { return fragment(f)&0x1fff != 0 }},
	{IPv4Fragments, "ends beyond 65535", func(f []byte) bool { return int(fragment(f)&0x1fff)*8+len(f)-34 > 65535 }},
	{IPv6Header, "version", func(f []byte) bool { return f[etherLen]>>4 != 6 }},
	{IPv6Header, "beyond the frame", func(f []byte) bool { return int(payload6(f)) > len(f)-etherLen-ipv6Len }},
	{IPv6Header, "from loopback", func(f []byte) bool { return netip.AddrFrom16([16]byte(f[22:38])).IsLoopback() }},
	{IPv6Chain, "a hundred headers", func(f []byte) bool { return len(f) > etherLen+ipv6Len+800 }},
	{IPv6Chain, "cut off", func(f []byte) bool { return (len(f)-etherLen-ipv6Len)%8 != 0 }},
	{NDP, "option of length 0", func(f []byte) bool { return f[54] == ndpNeighborAsk && f[54+25] == 0 }},
	{NDP, "option beyond the packet", func(f []byte) bool { return f[54] == ndpNeighborAsk && f[54+25] == 255 }},
	{NDP, "advertisement", func(f []byte) bool { return f[54] == ndpNeighborAdvert }},
	{NDP, "redirect", func(f []byte) bool { return f[54] == ndpRedirect }},
	{TCPHeader, "short data offset", func(f []byte) bool { s := segment(f); return s[12]>>4 < 5 }},
	{TCPHeader, "long data offset", func(f []byte) bool { s := segment(f); return int(s[12]>>4)*4 > len(s) }},
	{TCPHeader, "cut off", func(f []byte) bool { return len(segment(f)) < tcpLen }},
	{TCPOptions, "length 0", func(f []byte) bool { return segment(f)[21] == 0 }},
	{TCPOptions, "beyond the header", func(f []byte) bool { s := segment(f); return int(s[21]) > int(s[12]>>4)*4-20 }},
	{SYN, "a SYN for the server", func(f []byte) bool { s := segment(f); return s[13] == tcpSYN && s[3] == 80 }},
	{UDPHeader, "length below the header", func(f []byte) bool { return lengthUDP(f) < udpLen }},
	{UDPHeader, "length beyond the packet", func(f []byte) bool { return lengthUDP(f) > len(segment(f)) }},
	{ICMPError, "of version 4", func(f []byte) bool { return f[12] == 8 && f[etherLen+9] == protoICMP }},
	{ICMPError, "of version 6", func(f []byte) bool { return f[12] == 0x86 && f[etherLen+6] == protoICMPv6 }},
	{ICMPError, "quotes less than a header", func(f []byte) bool { return f[12] == 8 && len(f) < etherLen+ipv4Len+8+ipv4Len }},
	{Giant, "60000 bytes", func(f []byte) bool { return len(f) > 60000 }},
	{Mutated, "another type", func(f []byte) bool { return f[12] != 8 && f[12] != 0x86 }},
	{Noise, "no payload to speak of", func(f []byte) bool { return len(f) < etherLen+10 }},
}

func isTag(f []byte) bool      { k := binary.BigEndian.Uint16(f); return k == ether8021 || k == ether88a8 }
func total4(f []byte) int      { return int(binary.BigEndian.Uint16(f[etherLen+2:])) }
func fragment(f []byte) uint16 { return binary.BigEndian.Uint16(f[etherLen+6:]) }
func payload6(f []byte) uint16 { return binary.BigEndian.Uint16(f[etherLen+4:]) }
func lengthUDP(f []byte) int   { return int(binary.BigEndian.Uint16(segment(f)[4:])) }
func segment(f []byte) []byte {
	if f[12] == 8 {
		return f[etherLen+ipv4Len:]
	}
	return f[etherLen+ipv6Len:]
}

func TestFaultsAreProduced(t *testing.T) {
	g := newGenerator(t, 1)
	frames := map[Class][][]byte{}
	for range 500 * int(numClasses) {
		c, f := g.Next()
		frames[c] = append(frames[c], f)
	}
	covered := map[Class]bool{}
	for _, fault := range faults {
		covered[fault.class] = true
		found := 0
		for _, f := range frames[fault.class] {
			if fault.has(f) {
				found++
			}
		}
		require.NotZero(t, found, "%v: %s", fault.class, fault.name)
		if fault.class != SYN && fault.class != Giant {
			require.Less(t, found, len(frames[fault.class]), "%v: every frame: %s", fault.class, fault.name)
		}
	}
	require.Len(t, covered, int(numClasses))
}

func TestClassesHaveNames(t *testing.T) {
	names := map[string]bool{}
	for _, c := range Classes() {
		names[c.String()] = true
	}
	require.Len(t, names, int(numClasses))
	require.NotContains(t, names, "unknown")
	require.Equal(t, "unknown", Class(-1).String())
	require.Equal(t, "unknown", numClasses.String())
}

func TestTargetMustBeComplete(t *testing.T) {
	for _, spoil := range []func(*Target){
		func(t *Target) { t.MAC = nil },
		func(t *Target) { t.IPv4 = t.IPv6 },
		func(t *Target) { t.FromIPv6 = netip.Addr{} },
	} {
		target := testTarget()
		spoil(&target)
		_, err := New(1, target)
		require.ErrorContains(t, err, "hostile: target needs")
	}
}
