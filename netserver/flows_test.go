package netserver

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// many is more flows than all sets hold, several times over.
const many = 8 * flowSets * flowWays

// fragmentOf makes f the first fragment of datagram n, or a further one.
func fragmentOf(n uint16, f frame, first bool) frame {
	f.id, f.more = n, first
	if !first {
		f.offset, f.payload = 8, make([]byte, 16)
	}
	return f
}

// TestManyEchoesDisplaceNobodys: one instance sends more echo requests than are
// remembered; another one gets its replies.
func TestManyEchoesDisplaceNobodys(t *testing.T) {
	f := newForwarder(t)
	request := func(s *sender, ident uint16) {
		p := parsed(t, out(shared4, peer4, protoICMP, icmp(icmpEcho, 0, ident)).bytes())
		require.Equal(t, actUplink, f.egress(s, p, 1).action)
	}
	request(&two, 42)
	for i := range uint16(many) {
		request(&one, 100+i)
	}
	reply := parsed(t, in(peer4, shared4, protoICMP, icmp(icmpEchoReply, 0, 42)).bytes())
	require.Equal(t, deliver(2), f.ingress(reply, 2))
}

// TestManyFragmentsDisplaceNobodys: an instance, or the wire to one of them, begins
// more datagrams than are remembered; what others have begun goes on.
func TestManyFragmentsDisplaceNobodys(t *testing.T) {
	f := newForwarder(t)
	sent := out(shared4, peer4, protoUDP, udp(81, 5))
	arriving := in(peer4, shared4, protoUDP, udp(5, 81))
	among := out(dedicated4, shared4, protoUDP, udp(5, 81))
	from := func(s *sender, d frame) verdict { return f.egress(s, parsed(t, d.bytes()), 1) }
	came := func(d frame) verdict { return f.ingress(parsed(t, d.bytes()), 1) }
	require.Equal(t, actUplink, from(&two, fragmentOf(9, sent, true)).action)
	require.Equal(t, deliver(2), came(fragmentOf(9, arriving, true)))
	require.Equal(t, deliver(2), from(&three, fragmentOf(9, among, true)))
	for i := range uint16(many) {
		require.Equal(t, actUplink, from(&one, fragmentOf(100+i, out(shared4, peer4, protoUDP, udp(80, 5)), true)).action)
		require.Equal(t, deliver(2), from(&one, fragmentOf(100+i, out(shared4, shared4, protoUDP, udp(80, 81)), true)))
		require.Equal(t, deliver(1), came(fragmentOf(100+i, in(peer4, shared4, protoUDP, udp(5, 80)), true)))
	}
	require.Equal(t, actUplink, from(&two, fragmentOf(9, sent, false)).action)
	require.Equal(t, deliver(2), came(fragmentOf(9, arriving, false)))
	require.Equal(t, deliver(2), from(&three, fragmentOf(9, among, false)))
}

// TestFlowsKeepParts: in one set, each of n accounts finds its last flowWays/n flows.
func TestFlowsKeepParts(t *testing.T) {
	var t0 flows
	t0.init()
	var keys [][]flow // of each account, all in one set
	for a := range uint32(flowWays) {
		keys = append(keys, nil)
		for id := uint32(0); len(keys[a]) < 2*flowWays; id++ {
			if k := (flow{proto: uint8(a), id: id}); t0.index(k) == 7 {
				keys[a] = append(keys[a], k)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		tab := flows{seed: t0.seed, sets: make([]flowSet, flowSets)}
		tab.once.Do(func() {})
		n := rapid.IntRange(1, flowWays).Draw(t, "accounts")
		last := make([][]flow, n)
		for now := range int64(rapid.IntRange(1, 200).Draw(t, "notes")) {
			a := rapid.IntRange(0, n-1).Draw(t, "account")
			k := rapid.SampledFrom(keys[a]).Draw(t, "flow")
			tab.note(k, account(a), uint32(a), now)
			last[a] = latest(last[a], k, flowWays/n)
			for a, all := range last {
				for _, k := range all {
					owner, ok := tab.find(k, now)
					require.True(t, ok, "account %d", a)
					require.EqualValues(t, a, owner)
				}
			}
		}
	})
}

// latest adds k to the last flows, of which there are most.
func latest(all []flow, k flow, most int) []flow {
	kept := []flow{k}
	for _, o := range all {
		if o != k && len(kept) < most {
			kept = append(kept, o)
		}
	}
	return kept
}

// TestFlowsAllocateNothing, in sets that are full too.
func TestFlowsAllocateNothing(t *testing.T) {
	var f flows
	f.init()
	id := uint32(0)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for range 100 {
			id++
			f.note(flow{id: id}, fromInstance(id%3), id%3, 1)
			_, ok := f.find(flow{id: id}, 1)
			require.True(t, ok)
		}
	}))
}

func BenchmarkFlowsNote(b *testing.B) {
	var f flows
	f.init()
	b.ReportAllocs()
	for i := range b.N {
		f.note(flow{id: uint32(i)}, fromInstance(uint32(i)%3), 1, 1)
	}
}
