package table

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

// TestTakeOver: a monitor ends, another process has the maps, and its successor
// finds the same table in them, and Views of its own show it.
func TestTakeOver(t *testing.T) {
	a := netip.MustParseAddr("198.18.0.1")
	first := newMaps(t, small)
	heldSlots, err := first.Slots.Clone()
	require.NoError(t, err)
	heldPorts, err := first.Ports.Clone()
	require.NoError(t, err)
	w, err := NewWriter(small, first)
	require.NoError(t, err)
	slot := small.Probe(KeyOf(a), 0)
	w.Apply([]Change{
		{Slot: true, Index: slot, Key: KeyOf(a), Word: NewWord(Shared, Server, 1, 1)},
		{Index: PortIndex(1, UDP, 65535), Word: NewWord(Port, Direct, 7, 3)},
	})
	old := viewOf(t, w)
	require.NoError(t, w.Close())
	require.NoError(t, first.Close())

	second, err := MapsOf(heldSlots, heldPorts)
	require.NoError(t, err)
	defer second.Close()
	require.Equal(t, small, second.Geometry)
	s, err := second.Snapshot()
	require.NoError(t, err)
	require.Equal(t, Slot{KeyOf(a), NewWord(Shared, Server, 1, 1)}, s.Slots[slot])
	require.Equal(t, NewWord(Port, Direct, 7, 3), s.Ports[PortIndex(1, UDP, 65535)])
	require.Equal(t, 1, len(s.Ports)-len(slices.DeleteFunc(slices.Clone(s.Ports), func(w Word) bool { return w != 0 })))

	w, err = NewWriter(small, second)
	require.NoError(t, err)
	defer w.Close()
	now := viewOf(t, w)
	w.Apply([]Change{{Index: PortIndex(1, UDP, 65535), Word: NewWord(Port, Direct, 8, 4)}})
	require.Equal(t, NewWord(Port, Direct, 8, 4), now.Lookup(KeyOf(a), UDP, 65535))
	require.Equal(t, NewWord(Port, Direct, 7, 3), old.Lookup(KeyOf(a), UDP, 65535), "the view of the first is what it was")
}

func TestMapsOfRefuses(t *testing.T) {
	good := small.header()
	next := good
	next[0] += 1 << 32
	larger := small
	larger.Shared++
	for name, c := range map[string]struct {
		slots, ports *ebpf.MapSpec
		header       *[slotWords]uint64
	}{
		"no header":            {slotsSpec(small), portsSpec(small), nil},
		"another version":      {slotsSpec(small), portsSpec(small), &next},
		"a map of other sizes": {slotsSpec(small), portsSpec(larger), &good},
		"another kind of map": {&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: slotSize, MaxEntries: 65},
			portsSpec(small), &good},
		"other values": {&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 65},
			portsSpec(small), nil},
	} {
		t.Run(name, func(t *testing.T) {
			slots, err := ebpf.NewMap(c.slots)
			require.NoError(t, err)
			if c.header != nil {
				require.NoError(t, slots.Put(uint32(0), *c.header))
			}
			ports, err := ebpf.NewMap(c.ports)
			require.NoError(t, err)
			_, err = MapsOf(slots, ports)
			require.ErrorIs(t, err, ErrGeometry)
			require.Equal(t, [2]int{-1, -1}, [2]int{slots.FD(), ports.FD()}, "taken over, and closed")
		})
	}
}

func TestCreateMapsRefuses(t *testing.T) {
	_, err := CreateMaps(Geometry{Shared: 65, Slots: 64})
	require.ErrorIs(t, err, ErrGeometry)
}

func BenchmarkWriterApply(b *testing.B) {
	for name, maps := range map[string]*Maps{"memfd": nil, "memfd and map": newMaps(b, small)} {
		b.Run(name, func(b *testing.B) {
			w, err := NewWriter(small, maps)
			require.NoError(b, err)
			defer w.Close()
			c := []Change{{Index: 80, Word: NewWord(Port, Server, 7, 1)}}
			b.ReportAllocs()
			for b.Loop() {
				w.Apply(c)
			}
		})
	}
}
