package netserver

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"junction/portmap/table"
)

// toGroup makes a frame one for a group's Ethernet address.
func toGroup(f frame) frame {
	f.dst = mac{1, 0, 0x5e, 0, 0, 1}
	return f
}

func quoting(kind, code uint8, quoted frame) []byte {
	return icmp(kind, code, 0, quoted.bytes()[ethLen:]...)
}

func TestIngress(t *testing.T) {
	f := newForwarder(t)
	for _, c := range []struct {
		name  string
		frame frame
		want  verdict
	}{
		{"tcp to an owner", in(peer4, shared4, protoTCP, tcp(5, 80, header.TCPFlagSyn)), deliver(1)},
		{"udp to another", in(peer4, shared4, protoUDP, udp(5, 81)), deliver(2)},
		{"tcp over IPv6", in(peer6, shared6, protoTCP, tcp(5, 80, header.TCPFlagSyn)), deliver(1)},
		{"tcp to nobody", in(peer4, shared4, protoTCP, tcp(5, 82, header.TCPFlagSyn)), answer(replyReset)},
		{"udp to nobody", in(peer6, shared6, protoUDP, udp(5, 82)), answer(replyNoPort)},
		{"udp to nobody, by broadcast", toGroup(in(peer4, shared4, protoUDP, udp(5, 82))), drop(dropNoPort)},
		{"dedicated, any protocol", in(peer4, dedicated4, 47, []byte("gre")), deliver(3)},
		{"dedicated IPv6", in(peer6, dedicated6, protoTCP, tcp(5, 80, header.TCPFlagSyn)), deliver(3)},
		{"shared, no ports", in(peer4, shared4, 47, []byte("gre")), drop(dropNoProtocol)},
		{"ping", in(peer4, shared4, protoICMP, icmp(icmpEcho, 0, 7)), answer(replyEcho)},
		{"ping IPv6", in(peer6, shared6, protoICMPv6, icmp(icmp6Echo, 0, 7)), answer(replyEcho)},
		{"pong unasked", in(peer4, shared4, protoICMP, icmp(icmpEchoReply, 0, 7)), drop(dropICMPUnclaimed)},
		{"error about a segment of 2", in(peer4, shared4, protoICMP,
			quoting(icmpUnreachable, 1, out(shared4, peer4, protoTCP, tcp(81, 5, header.TCPFlagSyn)))), deliver(2)},
		{"error about a datagram of 1, IPv6", in(peer6, shared6, protoICMPv6,
			quoting(icmp6Unreachable, 1, out(shared6, peer6, protoUDP, udp(80, 5)))), deliver(1)},
		{"error about nobody's", in(peer4, shared4, protoICMP,
			quoting(icmpUnreachable, 1, out(shared4, peer4, protoTCP, tcp(9, 5, header.TCPFlagSyn)))), drop(dropICMPUnclaimed)},
		{"error about another's packet", in(peer4, shared4, protoICMP,
			quoting(icmpUnreachable, 1, out(peer4, shared4, protoTCP, tcp(80, 5, header.TCPFlagSyn)))), drop(dropICMPUnclaimed)},
		{"multicast", toGroup(in(peer4, netip.MustParseAddr("224.0.0.251"), protoUDP, udp(5, 5353))), verdict{action: actFlood}},
		{"broadcast of a network", toGroup(in(peer4, netip.MustParseAddr("198.18.0.255"), protoUDP, udp(5, 6))), verdict{action: actFlood}},
		{"not ours", in(peer4, netip.MustParseAddr("198.18.0.77"), protoUDP, udp(5, 6)), drop(dropNotOurs)},
		{"from our own address", frame{from: peer4, to: shared4, src: ourMAC, dst: ourMAC, proto: protoUDP, payload: udp(5, 80)}, drop(dropOwnMAC)},
		{"for another station", frame{from: peer4, to: shared4, src: peerMAC, dst: peerMAC, proto: protoUDP, payload: udp(5, 80)}, drop(dropOtherMAC)},
		{"solicitation", toGroup(in(peer6, netip.MustParseAddr("ff02::1:ff00:2"), protoICMPv6, solicit(shared6))), answer(replyNDP)},
		{"another's solicitation", toGroup(in(peer6, netip.MustParseAddr("ff02::1:ff00:7"), protoICMPv6, solicit(netip.MustParseAddr("fd00::7")))), verdict{action: actFlood}},
		{"advertisement", in(peer6, shared6, protoICMPv6, advertise(peer6)), verdict{action: actHolders, addr: table.KeyOf(shared6)}},
	} {
		require.Equal(t, c.want, f.ingress(parsed(t, c.frame.bytes()), 1), c.name)
	}
}

func solicit(target netip.Addr) []byte {
	return append([]byte{icmp6Solicit, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
}

func advertise(target netip.Addr) []byte {
	return append([]byte{icmp6Advertise, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
}

// linked appends an option with a link-layer address to a message.
func linked(message []byte, kind byte, a mac) []byte {
	return append(append(message, kind, 1), a[:]...)
}

func TestEgress(t *testing.T) {
	f := newForwarder(t)
	up, all := verdict{action: actUplink}, verdict{action: actAll}
	syn := header.TCPFlags(header.TCPFlagSyn)
	for _, c := range []struct {
		name  string
		from  sender
		frame frame
		want  verdict
	}{
		{"to the wire", one, out(shared4, peer4, protoTCP, tcp(80, 5, syn)), up},
		{"to the wire, dedicated", three, out(dedicated4, peer4, protoTCP, tcp(99, 5, syn)), up},
		{"to another instance", one, out(shared4, dedicated4, protoTCP, tcp(80, 5, syn)), deliver(3)},
		{"to another by the shared address", one, out(shared4, shared4, protoTCP, tcp(80, 81, syn)), deliver(2)},
		{"to itself by the shared address", one, out(shared4, shared4, protoTCP, tcp(80, 80, syn)), deliver(1)},
		{"to nobody by the shared address", three, out(dedicated4, shared4, protoTCP, tcp(9, 82, syn)), answer(replyReset)},
		{"from another's port", one, out(shared4, peer4, protoTCP, tcp(81, 5, syn)), drop(dropSpoofedPort)},
		{"from nobody's port", one, out(shared6, peer6, protoUDP, udp(82, 5)), drop(dropSpoofedPort)},
		{"from another's address", one, out(dedicated4, peer4, protoTCP, tcp(80, 5, syn)), drop(dropSpoofedIP)},
		{"dedicated, from the shared address", three, out(shared4, peer4, protoTCP, tcp(80, 5, syn)), drop(dropSpoofedIP)},
		{"from an address on the wire", three, out(peer4, dedicated4, protoTCP, tcp(80, 5, syn)), drop(dropSpoofedIP)},
		{"from another MAC address", one, frame{from: shared4, to: peer4, src: peerMAC, dst: peerMAC, proto: protoTCP, payload: tcp(80, 5, syn)}, drop(dropSpoofedMAC)},
		{"to our MAC address", one, frame{from: shared4, to: peer4, src: ourMAC, dst: ourMAC, proto: protoTCP, payload: tcp(80, 5, syn)}, drop(dropTurnedBack)},
		{"multicast", one, toGroup(out(shared4, netip.MustParseAddr("224.0.0.251"), protoUDP, udp(80, 5353))), all},
		{"multicast from another's port", one, toGroup(out(shared4, netip.MustParseAddr("224.0.0.251"), protoUDP, udp(81, 5353))), drop(dropSpoofedPort)},
		{"advertising another's address", three, out(dedicated6, peer6, protoICMPv6, advertise(shared6)), drop(dropSpoofedIP)},
		{"advertising its own", one, out(shared6, peer6, protoICMPv6, linked(advertise(shared6), 2, ourMAC)), up},
		{"advertising another MAC address", one, out(shared6, peer6, protoICMPv6, linked(advertise(shared6), 2, peerMAC)), drop(dropSpoofedMAC)},
		{"the same behind another option", one, out(shared6, peer6, protoICMPv6, linked(linked(advertise(shared6), 14, ourMAC), 2, peerMAC)), drop(dropSpoofedMAC)},
		{"soliciting", one, out(shared6, peer6, protoICMPv6, linked(solicit(peer6), 1, ourMAC)), up},
		{"soliciting for another MAC address", one, out(shared6, peer6, protoICMPv6, linked(solicit(peer6), 1, peerMAC)), drop(dropSpoofedMAC)},
		{"option of no length", one, out(shared6, peer6, protoICMPv6, append(solicit(peer6), 1, 0, 0, 0, 0, 0, 0, 0)), drop(dropIPMalformed)},
		{"option cut off", one, out(shared6, peer6, protoICMPv6, linked(solicit(peer6), 1, ourMAC)[:28]), drop(dropIPMalformed)},
		{"router solicitation for another MAC address", one, out(shared6, peer6, protoICMPv6, linked(icmp(133, 0, 0), 1, peerMAC)), drop(dropSpoofedMAC)},
		{"report without address", one, toGroup(out(netip.IPv6Unspecified(), netip.MustParseAddr("ff02::16"), protoICMPv6, icmp(icmp6MLDv2, 0, 0))), verdict{action: actReport}},
		{"report", one, toGroup(out(shared4, netip.MustParseAddr("224.0.0.22"), protoIGMP, icmp(igmpReportV3, 0, 0))), verdict{action: actReport}},
		{"query", one, toGroup(out(shared4, netip.MustParseAddr("224.0.0.1"), protoIGMP, icmp(igmpQuery, 0, 0))), all},
		{"else without address", one, toGroup(out(netip.IPv6Unspecified(), netip.MustParseAddr("ff02::16"), protoUDP, udp(80, 5))), drop(dropSpoofedIP)},
	} {
		require.Equal(t, c.want, f.egress(&c.from, parsed(t, c.frame.bytes()), 1), c.name)
	}
}

// Neighbour discovery in fragments is refused (RFC 6980), and what is longer than the
// server looks, for there may be an option in it.
func TestEgressDiscoveryIsSeenWhole(t *testing.T) {
	f := newForwarder(t)
	part := out(shared6, peer6, protoICMPv6, linked(advertise(shared6), 2, ourMAC))
	part.more, part.id = true, 9
	require.Equal(t, drop(dropFragment), f.egress(&one, parsed(t, part.bytes()), 1))
	long := advertise(shared6)
	for range 32 {
		long = linked(long, 14, ourMAC)
	}
	b := out(shared6, peer6, protoICMPv6, long).bytes()
	var p packet
	require.Equal(t, dropNone, p.parse(b[:headLen], len(b)))
	require.Equal(t, drop(dropLongHeaders), f.egress(&one, &p, 1))
}

// TestEchoReplies go to who asked, as long as it is remembered.
func TestEchoReplies(t *testing.T) {
	f := newForwarder(t)
	require.Equal(t, actUplink, f.egress(&two, parsed(t, out(shared4, peer4, protoICMP, icmp(icmpEcho, 0, 42)).bytes()), 1).action)
	reply := parsed(t, in(peer4, shared4, protoICMP, icmp(icmpEchoReply, 0, 42)).bytes())
	require.Equal(t, deliver(2), f.ingress(reply, 2))
	require.Equal(t, drop(dropICMPUnclaimed), f.ingress(reply, 1+int64(flowLife)))
	failure := quoting(icmpUnreachable, 1, out(shared4, peer4, protoICMP, icmp(icmpEcho, 0, 42)))
	require.Equal(t, deliver(2), f.ingress(parsed(t, in(peer4, shared4, protoICMP, failure).bytes()), 2))
}

// TestFragments follow the first one, in both directions.
func TestFragments(t *testing.T) {
	f := newForwarder(t)
	for _, peer := range []netip.Addr{peer4, peer6} {
		ours := shared4
		if peer.Is6() {
			ours = shared6
		}
		first := in(peer, ours, protoUDP, udp(5, 81))
		first.more, first.id = true, 9
		later := in(peer, ours, protoUDP, make([]byte, 16))
		later.offset, later.id = 8, 9
		require.Equal(t, drop(dropFragment), f.ingress(parsed(t, later.bytes()), 1), "before the first")
		require.Equal(t, deliver(2), f.ingress(parsed(t, first.bytes()), 1))
		require.Equal(t, deliver(2), f.ingress(parsed(t, later.bytes()), 1))
		later.id++
		require.Equal(t, drop(dropFragment), f.ingress(parsed(t, later.bytes()), 1), "of another datagram")

		first = out(ours, peer, protoUDP, udp(80, 5))
		first.more, first.id = true, 9
		later = out(ours, peer, protoUDP, make([]byte, 16))
		later.offset, later.id = 8, 9
		require.Equal(t, drop(dropFragment), f.egress(&one, parsed(t, later.bytes()), 1), "before the first")
		require.Equal(t, actUplink, f.egress(&one, parsed(t, first.bytes()), 1).action)
		require.Equal(t, actUplink, f.egress(&one, parsed(t, later.bytes()), 1).action)
		require.Equal(t, drop(dropFragment), f.egress(&two, parsed(t, later.bytes()), 1), "of another instance")
	}
}

func arp(op uint16, src mac, spa, tpa netip.Addr) []byte {
	b := slices.Concat(bytes.Repeat([]byte{0xff}, 6), src[:], []byte{8, 6, 0, 1, 8, 0, 6, 4, byte(op >> 8), byte(op)}, src[:], spa.AsSlice(), make([]byte, 6), tpa.AsSlice())
	return append(b, make([]byte, 18)...) // Ethernet's padding
}

func TestARP(t *testing.T) {
	f := newForwarder(t)
	holders := verdict{action: actHolders, addr: table.KeyOf(shared4)}
	other := netip.MustParseAddr("198.18.0.77")
	require.Equal(t, answer(replyARP), f.ingress(parsed(t, arp(arpRequest, peerMAC, peer4, shared4)), 1))
	require.Equal(t, answer(replyARP), f.ingress(parsed(t, arp(arpRequest, peerMAC, peer4, dedicated4)), 1))
	require.Equal(t, drop(dropARPOther), f.ingress(parsed(t, arp(arpRequest, peerMAC, peer4, other)), 1))
	require.Equal(t, holders, f.ingress(parsed(t, arp(arpReply, peerMAC, peer4, shared4)), 1))
	require.Equal(t, actUplink, f.egress(&one, parsed(t, arp(arpRequest, ourMAC, shared4, peer4)), 1).action)
	require.Equal(t, answer(replyARP), f.egress(&one, parsed(t, arp(arpRequest, ourMAC, shared4, dedicated4)), 1))
	require.Equal(t, answer(replyARP), f.egress(&one, parsed(t, arp(arpRequest, ourMAC, shared4, shared4)), 1))
	require.Equal(t, drop(dropSpoofedIP), f.egress(&one, parsed(t, arp(arpReply, ourMAC, peer4, other)), 1))
	require.Equal(t, drop(dropSpoofedMAC), f.egress(&one, parsed(t, arp(arpReply, peerMAC, shared4, other)), 1))
}

// TestRefusalsAreLimited: no more than the burst at one moment, and some again later.
func TestRefusalsAreLimited(t *testing.T) {
	f := newForwarder(t)
	p := parsed(t, in(peer4, shared4, protoTCP, tcp(5, 82, header.TCPFlagSyn)).bytes())
	now := int64(1)
	for range refusalBurst {
		require.Equal(t, answer(replyReset), f.ingress(p, now))
	}
	require.Equal(t, drop(dropLimited), f.ingress(p, now))
	local := parsed(t, out(dedicated4, shared4, protoTCP, tcp(9, 82, header.TCPFlagSyn)).bytes())
	from := func(s sender) *sender { s.limit = new(limiter); return &s }
	hostile := from(three)
	for range refusalBurst {
		require.Equal(t, answer(replyReset), f.egress(hostile, local, now), "others' are not its own")
	}
	require.Equal(t, drop(dropLimited), f.egress(hostile, local, now))
	require.Equal(t, answer(replyReset), f.egress(from(three), local, now))
	now += 1e9 / refusalsPerSecond * 3
	for range 3 {
		require.Equal(t, answer(replyReset), f.ingress(p, now))
	}
	require.Equal(t, drop(dropLimited), f.ingress(p, now))
}
