package portmap

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/portmap/table"
)

var one = addrs("198.18.0.1")

// newMap1 is a Map of one shared address that instance 1 has joined.
func newMap1(t require.TestingT, o Options) *Map {
	o.Shared = one
	m, err := New(o)
	require.NoError(t, err)
	require.NoError(t, m.Join(1, Lease{Addrs: one, Mode: table.Server}))
	return m
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no address":         {},
		"the same twice":     {Shared: addrs("fd00::1", "fd00::1")},
		"a zone":             {Shared: addrs("fd00::1%eth9")},
		"IPv4 in IPv6":       {Shared: addrs("::ffff:198.18.0.1")},
		"loopback":           {Shared: addrs("127.0.0.1")},
		"a group":            {Shared: addrs("ff02::1")},
		"none":               {Shared: []netip.Addr{{}}},
		"a range backwards":  {Shared: one, EphemeralLow: 2, EphemeralHigh: 1},
		"slots no power":     {Shared: one, Slots: 100},
		"too few slots":      {Shared: addrs("fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd00::5", "fd00::6", "fd00::7", "fd00::8", "fd00::9"), Slots: 32},
		"a negative time":    {Shared: one, MaxTimeWait: -1},
		"no mode":            {Shared: one, Unowned: 9},
		"too many addresses": {Shared: make([]netip.Addr, table.MaxShared+1)},
	} {
		_, err := New(o)
		require.ErrorIs(t, err, unix.EINVAL, name)
	}
}

func TestJoinRefuses(t *testing.T) {
	m := newMap1(t, Options{})
	for name, l := range map[string]Lease{
		"no address":     {},
		"65 addresses":   {Addrs: make([]netip.Addr, MaxAddrs+1)},
		"no mode":        {Addrs: one, Mode: 9},
		"negative limit": {Addrs: one, MaxPorts: -1},
	} {
		require.ErrorIs(t, m.Join(2, l), unix.EINVAL, name)
	}
	require.ErrorIs(t, m.Join(table.MaxOwner+1, Lease{Addrs: one}), unix.EINVAL)
	require.NoError(t, m.Join(table.MaxOwner, Lease{Addrs: one}))
}

// TestEveryEphemeralPortOnce takes the whole default range: 28,232 ports,
// each once, then none.
func TestEveryEphemeralPortOnce(t *testing.T) {
	m := newMap1(t, Options{Seed: [32]byte{1}})
	seen := make(map[uint16]bool)
	for i := range 60999 - 32768 + 1 {
		ep, err := m.Bind(1, Request{Socket: Socket(i), Addr: one[0], Purpose: ForConnect})
		require.NoError(t, err)
		require.False(t, seen[ep.Port()])
		require.True(t, ep.Port() >= 32768 && ep.Port() <= 60999)
		seen[ep.Port()] = true
	}
	_, err := m.Bind(1, Request{Socket: 1 << 40, Addr: one[0], Purpose: ForConnect})
	require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
	_, err = m.Bind(1, Request{Socket: 1 << 40, Proto: table.UDP, Addr: one[0], Purpose: ForSend})
	require.NoError(t, err, "UDP has its own")
}

// TestEphemeralPortsAreFair: with 0 %, 50 % and 99 % of the ports taken, in one
// long run, every free port is as likely as any other.
func TestEphemeralPortsAreFair(t *testing.T) {
	const low, high = 32768, 33767 // 1000 ports, at word boundaries and not
	for _, taken := range []int{0, 500, 990} {
		m := newMap1(t, Options{Seed: [32]byte{2}, EphemeralLow: low, EphemeralHigh: high})
		for p := low; p < low+taken; p++ {
			_, err := m.Bind(1, Request{Socket: Socket(p), Addr: one[0], Port: uint16(p)})
			require.NoError(t, err)
		}
		free := high - low + 1 - taken
		draws := free * 100
		count := make(map[uint16]int)
		for range draws {
			ep, err := m.Bind(1, Request{Socket: 1, Addr: one[0]})
			require.NoError(t, err)
			count[ep.Port()]++
			require.NoError(t, m.Close(1, 1, 0))
		}
		require.Len(t, count, free)
		chi2 := 0.0
		for _, n := range count {
			chi2 += float64((n-100)*(n-100)) / 100
		}
		// Its mean is free-1, its variance twice that; 5 sigma, with a fixed seed.
		require.InDelta(t, float64(free-1), chi2, 5*math.Sqrt(2*float64(free-1)), "%d taken", taken)
	}
}

// TestSameCallsSameResults: nothing depends on the order of Go's maps or on
// anything but the calls.
func TestSameCallsSameResults(t *testing.T) {
	run := func() (all []table.Change) {
		m := newMap1(t, Options{Seed: [32]byte{3}})
		require.NoError(t, m.Join(2, Lease{Addrs: addrs("198.18.0.1", "198.19.0.1", "198.19.0.2")}))
		for i := range 200 {
			_, err := m.Bind(Instance(1+i%2), Request{Socket: Socket(i), Addr: netip.IPv4Unspecified()})
			require.NoError(t, err)
			if i%3 == 0 {
				require.NoError(t, m.Close(Instance(1+i%2), Socket(i), time.Second))
			}
		}
		all = append(all, m.Changes()...)
		require.NoError(t, m.Advance(time.Second))
		m.Leave(2)
		m.Leave(1)
		return append(all, m.Changes()...)
	}
	first := run()
	for range 5 {
		require.Equal(t, first, run())
	}
}

// TestLeaveFreesAll: nothing of an instance remains, of however many.
func TestLeaveFreesAll(t *testing.T) {
	m := newMap1(t, Options{})
	writer, view := newTable(t, m)
	defer writer.Close()
	defer view.Close()
	for round := range 50 {
		if round > 0 {
			require.NoError(t, m.Join(1, Lease{Addrs: append(addrs("198.19.0.1"), one...)}))
		}
		for i := range 500 {
			_, err := m.Bind(1, Request{Socket: Socket(i), Proto: table.Proto(i % 2), Addr: netip.IPv4Unspecified()})
			require.NoError(t, err)
			if i%2 == 0 {
				require.NoError(t, m.Close(1, Socket(i), time.Hour))
			}
		}
		m.Leave(1)
		writer.Apply(m.Changes())
		checkInvariants(t, m, view)
		require.Empty(t, m.Ports())
		require.Empty(t, m.waits)
		require.Empty(t, m.instances)
		require.Len(t, m.spaces, 1)
		for p := range uint32(1 << 16) {
			require.Zero(t, view.Lookup(table.KeyOf(one[0]), table.TCP, uint16(p)).Owner())
		}
	}
}

// TestUsersOfAPortAreFew: an instance with ever more users cannot make a port's
// list long; sockets of users that are there are welcome.
func TestUsersOfAPortAreFew(t *testing.T) {
	m := newMap1(t, Options{})
	r := Request{Addr: one[0], Port: 80, Options: SocketOptions{ReuseAddr: true, ReusePort: true}}
	for i := range 2 * maxClasses {
		r.Socket, r.Options.UID = Socket(i), uint32(i)
		_, err := m.Bind(1, r)
		if i < maxClasses {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, unix.ENOBUFS)
		}
	}
	r.Options.UID = 0
	_, err := m.Bind(1, r)
	require.NoError(t, err)
	for i := range maxClasses {
		require.NoError(t, m.Close(1, Socket(i), time.Second))
	}
	require.Len(t, m.Ports(), 1)
	require.Len(t, m.spaces[one[0]].ports[table.TCP].get(80).users, 2, "who waits is of no user")
}

// TestRestoreRefuses: each change to a table makes it no table of these Options.
func TestRestoreRefuses(t *testing.T) {
	o := Options{Shared: addrs("198.18.0.1", "fd00::1"), Slots: 64}
	good := func() table.Snapshot {
		m, err := New(o)
		require.NoError(t, err)
		require.NoError(t, m.Join(5, Lease{Addrs: addrs("198.18.0.1", "198.19.0.1")}))
		_, err = m.Bind(5, Request{Socket: 1, Addr: one[0], Port: 80})
		require.NoError(t, err)
		return m.mirror
	}
	_, err := Restore(o, good())
	require.NoError(t, err)
	slot := func(s table.Snapshot, a string) *table.Slot {
		i := slices.IndexFunc(s.Slots, func(s table.Slot) bool { return s.Key == table.KeyOf(netip.MustParseAddr(a)) })
		return &s.Slots[i]
	}
	for name, spoil := range map[string]func(*table.Snapshot){
		"an owner of 0":             func(s *table.Snapshot) { s.Ports[80] = table.NewWord(table.Port, table.Server, 0, 1) },
		"an unknown kind":           func(s *table.Snapshot) { s.Ports[80] = table.NewWord(7, table.Server, 1, 1) },
		"a port that is an address": func(s *table.Snapshot) { s.Ports[80] = table.NewWord(table.Shared, table.Server, 0, 1) },
		"port 0":                    func(s *table.Snapshot) { s.Ports[0] = table.NewWord(table.Port, table.Server, 1, 1) },
		"an address that is a port": func(s *table.Snapshot) {
			slot(*s, "198.19.0.1").Word = table.NewWord(table.Port, table.Server, 1, 1)
		},
		"another index": func(s *table.Snapshot) {
			slot(*s, "fd00::1").Word = table.NewWord(table.Shared, table.Drop, 0, 1)
		},
		"another shared address": func(s *table.Snapshot) {
			slot(*s, "198.19.0.1").Word = table.NewWord(table.Shared, table.Drop, 1, 1)
		},
		"a shared address dedicated": func(s *table.Snapshot) {
			slot(*s, "fd00::1").Word = table.NewWord(table.Dedicated, table.Server, 1, 1)
		},
		"an address twice": func(s *table.Snapshot) {
			k := table.KeyOf(one[0])
			for i := range uint32(2) {
				s.Slots[s.Probe(k, i)] = table.Slot{Key: k, Word: table.NewWord(table.Shared, table.Drop, 0, 1)}
			}
		},
		"an address out of place": func(s *table.Snapshot) {
			k := table.KeyOf(netip.MustParseAddr("198.19.0.9"))
			s.Slots[s.Probe(k, table.ProbeWindow)] = table.Slot{Key: k, Word: table.NewWord(table.Dedicated, table.Drop, 1, 1)}
		},
		"too few ports":   func(s *table.Snapshot) { s.Ports = s.Ports[1:] },
		"too few slots":   func(s *table.Snapshot) { s.Slots = s.Slots[1:] },
		"an address less": func(s *table.Snapshot) { s.Shared = 1 },
	} {
		s := good()
		spoil(&s)
		_, err := Restore(o, s)
		require.ErrorIs(t, err, ErrSnapshot, name)
	}
	s := good()
	s.Geometry.Slots = 63
	_, err = Restore(o, s)
	require.ErrorIs(t, err, unix.EINVAL)
}

// TestRestoreOfWhatWasNeverWritten: a monitor that died before its first
// Changes leaves empty maps; the next one begins anew.
func TestRestoreOfWhatWasNeverWritten(t *testing.T) {
	o := Options{Shared: addrs("198.18.0.1", "fd00::1"), Slots: 64, Unowned: table.Host}
	m, err := Restore(o, table.NewSnapshot(table.Geometry{Shared: 2, Slots: 64}))
	require.NoError(t, err)
	fresh, err := New(o)
	require.NoError(t, err)
	require.Equal(t, fresh.Changes(), m.Changes())
	require.Len(t, m.mirror.Slots, 64)

	// What is restored is not written again, unless the Options differ.
	m, err = Restore(o, m.mirror)
	require.NoError(t, err)
	require.Empty(t, m.Changes())
	o.Unowned = table.Server
	m, err = Restore(o, m.mirror)
	require.NoError(t, err)
	require.Len(t, m.Changes(), 2)
}

// FuzzRestore restores tables with random entries: an error, or a consistent
// Map from which everybody can leave.
func FuzzRestore(f *testing.F) {
	o := Options{Shared: one, Slots: 32}
	m := newMap1(f, o)
	for i, s := range m.mirror.Slots {
		if s.Word != 0 {
			f.Add(binary.LittleEndian.AppendUint64([]byte{byte(i)}, uint64(s.Word)), uint32(80), uint64(table.NewWord(table.Port, table.Server, 7, 2)))
		}
	}
	f.Fuzz(func(t *testing.T, slots []byte, port uint32, word uint64) {
		s := newMap1(t, o).mirror
		for ; len(slots) >= 9; slots = slots[9:] {
			slot := &s.Slots[slots[0]%32]
			slot.Word = table.Word(binary.LittleEndian.Uint64(slots[1:]))
		}
		s.Ports[port%uint32(len(s.Ports))] = table.Word(word)
		m, err := Restore(o, s)
		if err != nil {
			require.ErrorIs(t, err, ErrSnapshot)
			return
		}
		for _, id := range m.Absent() {
			m.Leave(id)
		}
		require.Empty(t, m.Ports())
		require.Len(t, m.spaces, 1)
	})
}

// TestMonitorDies: the ports outlive the monitor in the words of its maps.
func TestMonitorDies(t *testing.T) {
	o := Options{Shared: one, Slots: 64, HashSeed: 5, Unowned: table.Server}
	m := newMap1(t, o)
	maps, err := table.CreateMaps(m.Geometry())
	require.NoError(t, err)
	defer maps.Close()
	w, err := table.NewWriter(m.Geometry(), maps)
	require.NoError(t, err)
	require.NoError(t, m.Join(2, Lease{Addrs: addrs("198.19.0.1"), Mode: table.Direct}))
	_, err = m.Bind(1, Request{Socket: 1, Addr: netip.IPv4Unspecified(), Port: 80})
	require.NoError(t, err)
	w.Apply(m.Changes())
	require.NoError(t, w.Close())

	s, err := maps.Snapshot()
	require.NoError(t, err)
	require.Equal(t, m.mirror.Ports, s.Ports)
	m, err = Restore(o, s)
	require.NoError(t, err)
	require.Empty(t, m.Changes(), "the death changes no entry")
	require.Equal(t, []Instance{1, 2}, m.Absent())
	require.Equal(t, []PortStatus{{
		Endpoint: netip.MustParseAddrPort("198.18.0.1:80"), Owner: 1, State: Kept, Mode: table.Server,
	}}, m.Ports())
}

func TestStateNames(t *testing.T) {
	require.Equal(t, "kept time-wait bound listening state(9)",
		Kept.String()+" "+TimeWait.String()+" "+Bound.String()+" "+Listening.String()+" "+State(9).String())
}
