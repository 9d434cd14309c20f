package table

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// withBPFFS runs f in a thread with a mount namespace of its own, in which dir
// is a BPF file system. Namespace and mount end with the thread.
func withBPFFS(t *testing.T, f func(dir string)) {
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever
		var err error
		defer func() { done <- err }()
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return
		}
		if err = unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err == nil {
			f(dir)
		}
	}()
	require.NoError(t, <-done, "mount a BPF file system: the tests run as root")
}

// TestTakeOver: a monitor ends, the maps stay pinned, its successor finds the
// same table, and Views of its own show it.
func TestTakeOver(t *testing.T) {
	withBPFFS(t, func(dir string) {
		_, err := LoadMaps(dir)
		require.ErrorIs(t, err, os.ErrNotExist)

		a := netip.MustParseAddr("198.18.0.1")
		first := newMaps(t, small)
		require.NoError(t, first.Pin(dir))
		require.ErrorIs(t, newMaps(t, small).Pin(dir), os.ErrExist, "another monitor's are there")
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

		second, err := LoadMaps(dir)
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

		require.NoError(t, second.Unpin())
		_, err = LoadMaps(dir)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestLoadMapsRefuses(t *testing.T) {
	pin := func(t *testing.T, dir, name string, spec *ebpf.MapSpec, header *[slotWords]uint64) {
		m, err := ebpf.NewMap(spec)
		require.NoError(t, err)
		defer m.Close()
		if header != nil {
			require.NoError(t, m.Put(uint32(0), *header))
		}
		require.NoError(t, m.Pin(filepath.Join(dir, name)))
	}
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
			withBPFFS(t, func(dir string) {
				pin(t, dir, slotsMap, c.slots, c.header)
				_, err := LoadMaps(dir)
				require.ErrorIs(t, err, os.ErrNotExist, "half of it")
				pin(t, dir, portsMap, c.ports, nil)
				_, err = LoadMaps(dir)
				require.ErrorIs(t, err, ErrGeometry)
			})
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
