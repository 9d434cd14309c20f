package table

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newPair makes a writer without maps, and a view of its table.
func newPair(t testing.TB, g Geometry) (*Writer, *View) {
	w, err := NewWriter(g, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w, viewOf(t, w)
}

func viewOf(t testing.TB, w *Writer) *View {
	f, err := w.ViewFile()
	require.NoError(t, err)
	defer f.Close()
	v, err := OpenView(f)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

func TestViewSeesWhatIsWritten(t *testing.T) {
	w, v := newPair(t, small)
	shared, dedicated := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("fd00::1")
	require.Zero(t, v.Lookup(KeyOf(shared), TCP, 80))
	require.Zero(t, v.Address(KeyOf(shared)))
	sharedWord, port, own := NewWord(Shared, Server, 1, 1), NewWord(Port, Direct, 7, 1), NewWord(Dedicated, Server, 9, 1)
	w.Apply([]Change{
		{Slot: true, Index: small.Probe(KeyOf(shared), 0), Key: KeyOf(shared), Word: sharedWord},
		{Slot: true, Index: small.Probe(KeyOf(dedicated), 0), Key: KeyOf(dedicated), Word: own},
		{Index: PortIndex(1, UDP, 53), Word: port},
	})
	require.Equal(t, small, v.Geometry())
	require.Equal(t, sharedWord, v.Address(KeyOf(shared)))
	require.Equal(t, port, v.Lookup(KeyOf(shared), UDP, 53))
	require.Equal(t, port, v.Lookup(KeyOf(netip.MustParseAddr("::ffff:198.18.0.1")), UDP, 53))
	require.Zero(t, v.Lookup(KeyOf(shared), TCP, 53))
	require.Zero(t, v.Lookup(KeyOf(shared), Protos, 53))
	require.Equal(t, own, v.Lookup(KeyOf(dedicated), TCP, 1))
	require.Zero(t, testing.AllocsPerRun(100, func() { v.Lookup(KeyOf(shared), UDP, 53) }))
}

func TestViewOutlivesTheWriter(t *testing.T) {
	w, err := NewWriter(small, nil)
	require.NoError(t, err)
	v := viewOf(t, w)
	a := netip.MustParseAddr("198.18.0.1")
	w.Apply([]Change{{Slot: true, Index: small.Probe(KeyOf(a), 0), Key: KeyOf(a), Word: NewWord(Dedicated, Server, 4, 1)}})
	require.NoError(t, w.Close())
	require.Equal(t, uint32(4), v.Lookup(KeyOf(a), TCP, 1).Owner())
}

// TestOpenViewRefuses: whatever file somebody passes, no mapping of it may
// ever fault or be another's to change.
func TestOpenViewRefuses(t *testing.T) {
	good := small.header()
	for name, c := range map[string]struct {
		size  int64
		seals int
		words []uint64
		want  error
	}{
		"no seals":          {int64(small.wordCount()) * 8, 0, good[:], ErrNotSealed},
		"may shrink":        {int64(small.wordCount()) * 8, seals &^ unix.F_SEAL_SHRINK, good[:], ErrNotSealed},
		"others may write":  {int64(small.wordCount()) * 8, seals &^ unix.F_SEAL_FUTURE_WRITE, good[:], ErrNotSealed},
		"empty":             {0, seals, nil, ErrGeometry},
		"no header":         {int64(small.wordCount()) * 8, seals, nil, ErrGeometry},
		"too short":         {int64(small.wordCount())*8 - 8, seals, good[:], ErrGeometry},
		"too long":          {int64(small.wordCount())*8 + 8, seals, good[:], ErrGeometry},
		"only a header":     {int64(pageSize), seals, good[:], ErrGeometry},
		"impossible sizes":  {int64(pageSize), seals, []uint64{good[0], 0, 1<<63 | 1}, ErrGeometry},
		"another's version": {int64(small.wordCount()) * 8, seals, []uint64{good[0] + 1<<32, good[1], good[2]}, ErrGeometry},
	} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			require.NoError(t, err)
			f := os.NewFile(uintptr(fd), "test")
			defer f.Close()
			_, err = f.Write(toBytes(c.words))
			require.NoError(t, err)
			require.NoError(t, f.Truncate(c.size))
			_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, c.seals)
			require.NoError(t, err)
			_, err = OpenView(f)
			require.ErrorIs(t, err, c.want)
		})
	}
	t.Run("a pipe", func(t *testing.T) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		defer w.Close()
		_, err = OpenView(r)
		require.ErrorIs(t, err, ErrNotSealed)
	})
}

func TestNewWriterRefuses(t *testing.T) {
	_, err := NewWriter(Geometry{}, nil)
	require.ErrorIs(t, err, ErrGeometry)
	_, err = NewWriter(small, &Maps{Geometry: Geometry{Shared: 1, Slots: 32}})
	require.ErrorIs(t, err, ErrGeometry)
}

// TestNothingLeaks: writers and views leave no descriptor and no mapping.
func TestNothingLeaks(t *testing.T) {
	count := func() (int, int) {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		maps, err := os.ReadFile("/proc/self/maps")
		require.NoError(t, err)
		return len(fds), strings.Count(string(maps), "junction_portmap")
	}
	fds, maps := count()
	for range 20 {
		w, err := NewWriter(small, nil)
		require.NoError(t, err)
		f, err := w.ViewFile()
		require.NoError(t, err)
		v, err := OpenView(f)
		require.NoError(t, err)
		_, mapped := count()
		require.Equal(t, maps+2, mapped)
		require.NoError(t, v.Close())
		require.NoError(t, v.Close(), "again")
		require.NoError(t, f.Close())
		require.NoError(t, w.Close())
	}
	fdsNow, mapsNow := count()
	require.Equal(t, fds, fdsNow)
	require.Equal(t, maps, mapsNow)
}
