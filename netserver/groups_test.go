package netserver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"pgregory.net/rapid"

	"junction/portmap/table"
)

var (
	group4 = netip.MustParseAddr("239.1.2.3")
	group6 = netip.MustParseAddr("ff05::123")
)

// joining is one of an IGMPv3 or MLDv2 report.
func joining(kind byte, group netip.Addr, sources ...netip.Addr) []byte {
	b := append([]byte{kind, 0, 0, byte(len(sources))}, group.AsSlice()...)
	for _, s := range sources {
		b = append(b, s.AsSlice()...)
	}
	return b
}

// report3 is a report of records, of the kind that these are of.
func report3(records ...[]byte) []byte {
	kind := byte(icmp6MLDv2)
	if records[0][4] != 0xff {
		kind = igmpReportV3
	}
	b := []byte{kind, 0, 0, 0, 0, 0, 0, byte(len(records))}
	for _, r := range records {
		b = append(b, r...)
	}
	return b
}

func TestReports(t *testing.T) {
	type said map[table.Key]bool
	in4, in6 := said{table.KeyOf(group4): true}, said{table.KeyOf(group6): true}
	out4, out6 := said{table.KeyOf(group4): false}, said{table.KeyOf(group6): false}
	old := func(kind byte, group netip.Addr) []byte {
		b := make([]byte, 4, 24)
		if group.Is6() {
			b = b[:8]
		}
		b[0] = kind
		return append(b, group.AsSlice()...)
	}
	for _, c := range []struct {
		name   string
		report []byte
		want   said
	}{
		{"IGMPv1", old(igmpReportV1, group4), in4},
		{"IGMPv2", old(igmpReportV2, group4), in4},
		{"IGMPv2 leave", old(igmpLeave, group4), out4},
		{"MLDv1", old(icmp6Report, group6), in6},
		{"MLDv1 done", old(icmp6Done, group6), out6},
		{"IGMPv3 exclude none", report3(joining(4, group4)), in4},
		{"IGMPv3 include none", report3(joining(3, group4)), out4},
		{"IGMPv3 include one", report3(joining(1, group4, peer4)), in4},
		{"IGMPv3 block", report3(joining(6, group4, peer4)), said{}},
		{"IGMPv3 two", report3(joining(6, group4, peer4), joining(2, group4)), in4},
		{"MLDv2 exclude one", report3(joining(2, group6, peer6)), in6},
		{"MLDv2 allow", report3(joining(5, group6, peer6)), in6},
		{"MLDv2 include none", report3(joining(3, group6)), out6},
	} {
		from, to, proto := shared4, group4, uint8(protoIGMP)
		if c.report[0] >= icmp6Report {
			from, to, proto = shared6, group6, protoICMPv6
		}
		b := toGroup(out(from, to, proto, c.report)).bytes()
		p, got := parsed(t, b), said{}
		require.True(t, p.reports(), c.name)
		require.True(t, p.reported(b[:min(len(b), headLen)], func(g table.Key, join bool) { got[g] = join }), c.name)
		require.Equal(t, c.want, got, c.name)
	}
	// One that is longer than what the server looks at joins everything.
	var many [][]byte
	for range 20 {
		many = append(many, joining(4, group6))
	}
	b := toGroup(out(shared6, group6, protoICMPv6, report3(many...))).bytes()
	var g groups
	g.hear(parsed(t, b), b[:headLen], 1)
	require.True(t, g.wants(table.KeyOf(netip.MustParseAddr("ff05::9")), 1<<60))
}

// TestGroupsModel compares with a set, and with everything while the set is not
// known or too large.
func TestGroupsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g groups
		model := map[table.Key]bool{}
		key := func() table.Key { return table.Key{0, uint64(rapid.IntRange(1, 10).Draw(t, "group"))} }
		require.True(t, g.wants(key(), 1<<60), "nothing is known")
		g.known.Store(100)
		for range rapid.IntRange(0, 100).Draw(t, "changes") {
			k, join := key(), rapid.Bool().Draw(t, "join")
			g.change(k, join)
			model[k] = join
			k = key()
			require.Equal(t, model[k], g.wants(k, 100))
			require.True(t, g.wants(k, 99), "not known yet")
		}
		for i := range uint64(2 * maxGroups) {
			g.change(table.Key{1, i}, true)
		}
		require.True(t, g.wants(table.Key{2, 2}, 100))
		require.LessOrEqual(t, len(*g.joined.Load()), maxGroups)
	})
}

// TestJoinedGroups: multicast goes to those who joined, reports to the wire
// alone, what is for all hosts to all.
func TestJoinedGroups(t *testing.T) {
	b := newBench(t)
	report := toGroup(out(shared4, netip.MustParseAddr("224.0.0.22"), protoIGMP, report3(joining(4, group4)))).bytes()
	b.send(1, report)
	require.Equal(t, [][]byte{report}, b.nic.awaitSent(1))
	for _, p := range b.ports.Load().all {
		p.groups.known.Store(1) // long ago
	}
	one := toGroup(in(peer4, group4, protoUDP, udp(5, 6))).bytes()
	everybody := toGroup(in(peer4, netip.MustParseAddr("224.0.0.1"), protoUDP, udp(5, 6))).bytes()
	b.nic.arrive(one, everybody)
	require.Equal(t, one, b.receive(1))
	for id := range b.ends {
		require.Equal(t, everybody, b.receive(id))
	}
	// From another instance too, and onto the wire.
	other := toGroup(out(dedicated4, group4, protoUDP, udp(5, 6))).bytes()
	b.send(3, other)
	require.Equal(t, other, b.receive(1))
	require.Equal(t, [][]byte{other}, b.nic.awaitSent(1))
	// Nobody is left.
	b.send(1, toGroup(out(shared4, netip.MustParseAddr("224.0.0.2"), protoIGMP, report3(joining(3, group4)))).bytes())
	b.nic.awaitSent(1)
	b.nic.arrive(one)
	require.Eventually(t, func() bool { return b.Stats().Uplink.Drops["no_member"] == 1 }, 30*time.Second, time.Millisecond)
	for _, a := range []string{"ff02::1", "224.0.0.251", "255.255.255.255", "198.18.0.255"} {
		h := ipHeader{dst: table.KeyOf(netip.MustParseAddr(a)), v6: netip.MustParseAddr(a).Is6()}
		require.True(t, h.everybody(), a)
	}
	for _, a := range []string{"ff02::fb", "ff02::1:ff00:1", "239.1.2.3", "224.0.1.1"} {
		h := ipHeader{dst: table.KeyOf(netip.MustParseAddr(a)), v6: netip.MustParseAddr(a).Is6()}
		require.False(t, h.everybody(), a)
	}
}

// TestQuestions: the instances' stack answers the server's questions, with what
// it has joined.
func TestQuestions(t *testing.T) {
	s := stack.New(stack.Options{NetworkProtocols: []stack.NetworkProtocolFactory{
		ipv4.NewProtocolWithOptions(ipv4.Options{IGMP: ipv4.IGMPOptions{Enabled: true}}),
		ipv6.NewProtocolWithOptions(ipv6.Options{MLD: ipv6.MLDOptions{Enabled: true}}),
	}, Clock: faketime.NewManualClock()})
	defer s.Destroy()
	clock := s.Clock().(*faketime.ManualClock)
	link := channel.New(100, 1500, tcpip.LinkAddress(ourMAC[:]))
	defer link.Close()
	require.Nil(t, s.CreateNIC(1, link))
	require.Nil(t, s.AddProtocolAddress(1, tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFrom4(shared4.As4()).WithPrefix(),
	}, stack.AddressProperties{}))
	require.Nil(t, s.JoinGroup(ipv4.ProtocolNumber, 1, tcpip.AddrFrom4(group4.As4())))
	require.Nil(t, s.JoinGroup(ipv6.ProtocolNumber, 1, tcpip.AddrFrom16(group6.As16())))
	f := newForwarder(t)
	for _, q := range [][]byte{f.query4(make([]byte, maxAnswer)), f.query6(make([]byte, maxAnswer))} {
		clock.Advance(time.Hour) // what it says unasked
		link.Drain()
		require.Equal(t, dropNone, new(packet).parse(q, len(q)))
		require.True(t, isQuery(q))
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(q[ethLen:])})
		link.InjectInbound(tcpip.NetworkProtocolNumber(uint16(q[12])<<8|uint16(q[13])), pkt)
		pkt.DecRef()
		clock.Advance(2 * queryTime)
		joined := map[table.Key]bool{}
		for answer := link.Read(); answer != nil; answer = link.Read() {
			b := append(append([]byte{}, q[:ethLen]...), answer.ToView().AsSlice()...)
			answer.DecRef()
			p := parsed(t, b)
			require.True(t, p.reports())
			require.True(t, p.reported(b, func(g table.Key, join bool) { joined[g] = join }))
		}
		want := group4
		if q[12] == 0x86 {
			want = group6
		}
		require.True(t, joined[table.KeyOf(want)], "%v: %v", want, joined)
	}
}
