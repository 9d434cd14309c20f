package portmap

import (
	"math/bits"
	"net/netip"

	"github.com/stretchr/testify/require"

	"junction/portmap/table"
)

// checkInvariants checks that all parts of a Map, whose Changes are applied,
// say the same, and the table with them.
func checkInvariants(t require.TestingT, m *Map, view *table.View) {
	require.Empty(t, m.changes)
	owned := checkPorts(t, m, view)
	checkShares(t, m)
	inSets, bits := 0, 0
	for a, s := range m.spaces {
		require.Equal(t, a, s.addr)
		w := view.Address(table.KeyOf(a))
		require.Equal(t, m.mirror.Slots[s.slot].Word, w)
		if s.owner != nil {
			require.Equal(t, table.Dedicated, w.Kind())
			require.Equal(t, uint32(s.owner.id), w.Owner())
			require.Contains(t, s.owner.addrs, s)
			require.Same(t, m.instances[s.owner.id], s.owner)
		} else {
			require.Equal(t, table.NewWord(table.Shared, m.opt.Unowned, uint32(s.index), w.Generation()), w)
		}
		for i := range s.ports {
			inSets += len(s.ports[i].ports)
			bits += s.ports[i].count(t)
		}
	}
	require.Equal(t, owned, inSets)
	require.Equal(t, owned, bits)
	checkSockets(t, m)
}

// checkShares counts anew what each instance has of what is shared out.
func checkShares(t require.TestingT, m *Map) {
	taken := make(map[pool]int)
	for _, inst := range m.instances {
		held := make(map[pool]int)
		for _, p := range inst.ports {
			if p.space.owner == nil {
				held[m.poolOf(p.space, p.proto, p.number)]++
				taken[m.poolOf(p.space, p.proto, p.number)]++
			}
		}
		require.Equal(t, len(held), len(inst.held))
		for l, n := range held {
			require.Equal(t, n, inst.held[l])
		}
	}
	for l, n := range m.taken {
		require.Equal(t, taken[l], n)
	}
}

// checkPorts checks the owned ports, from their owners' side, and counts them.
func checkPorts(t require.TestingT, m *Map, view *table.View) int {
	owned := 0
	for id, inst := range m.instances {
		require.Equal(t, id, inst.id)
		owned += len(inst.ports)
		for at, p := range inst.ports {
			require.Same(t, inst, p.owner)
			require.Equal(t, at, p.at)
			require.Same(t, p, p.space.ports[p.proto].get(p.number))
			require.Same(t, p.space, m.spaces[p.space.addr])
			w := view.Lookup(table.KeyOf(p.space.addr), p.proto, p.number)
			require.Equal(t, uint32(id), w.Owner())
			if p.space.owner == nil {
				require.Equal(t, table.NewWord(table.Port, p.mode, uint32(id), w.Generation()), w)
			}
		}
	}
	return owned
}

func (s *portSet) count(t require.TestingT) (n int) {
	for number := range s.ports {
		require.NotZero(t, s.used[number/64]>>(number%64)&1, number)
	}
	if s.used != nil {
		for _, w := range s.used {
			n += bits.OnesCount64(w)
		}
	}
	return n
}

// checkSockets checks that the users of each port are the sockets that use it.
func checkSockets(t require.TestingT, m *Map) {
	count := make(map[*port]map[class]int)
	add := func(s *socket) {
		for _, p := range s.ports {
			require.Equal(t, s.number, p.number)
			require.Equal(t, s.proto, p.proto)
			if count[p] == nil {
				count[p] = make(map[class]int)
			}
			count[p][s.class]++
		}
	}
	waiting := make(map[*instance]int)
	for _, s := range m.waits {
		require.True(t, s.class.waiting)
		waiting[s.owner]++
		add(s)
	}
	for _, inst := range m.instances {
		require.Equal(t, waiting[inst], inst.waiting)
		for _, s := range inst.sockets {
			require.False(t, s.class.waiting)
			add(s)
		}
		for _, p := range inst.ports {
			require.Len(t, p.users, len(count[p]))
			for _, u := range p.users {
				require.Equal(t, count[p][u.class], u.n)
			}
			delete(count, p)
		}
	}
	require.Empty(t, count, "sockets use ports that are nobody's")
}

func addrs(text ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range text {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}
