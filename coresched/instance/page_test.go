package instance

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pair(t *testing.T) (*Giver, *Taker) {
	g, files, err := NewGiver(4)
	require.NoError(t, err)
	taker, err := NewTaker(files)
	require.NoError(t, err)
	return g, taker
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}

// What one side says the other reads, and is rung for.
func TestTalk(t *testing.T) {
	g, taker := pair(t)
	require.Equal(t, Grant{0, 4}, taker.Grant())
	require.True(t, g.Settled())

	var cores cs.CPUSet
	cores.Add(3)
	g.Grant(2, &cores, true)
	require.NoError(t, taker.Wait())
	require.Equal(t, Grant{1, 2}, taker.Grant())
	require.False(t, g.Settled())
	taker.Settle(1)
	require.NoError(t, g.Wait())
	require.True(t, g.Settled())

	taker.Show(Demand{Want: 3, Waiting: 1, Longest: time.Second}, true)
	require.NoError(t, g.Wait())
	d := g.Demand(4)
	require.Equal(t, 3, d.Want)
	require.Equal(t, 1, d.Waiting)
	require.GreaterOrEqual(t, d.Longest, time.Second)
	taker.Show(Demand{}, false)
	require.Equal(t, Demand{}, g.Demand(4))

	beat := taker.Beat()
	g.Beat()
	require.NotEqual(t, beat, taker.Beat())

	taker.Silence()
	require.ErrorIs(t, taker.Wait(), os.ErrDeadlineExceeded)
	require.NoError(t, taker.Close())
	require.Error(t, g.Wait(), "the other side is gone")
	g.Grant(1, &cores, false) // harms nobody
	require.NoError(t, g.Close())
}

// Whatever an instance writes, what comes out of it makes sense.
func TestHostileInstance(t *testing.T) {
	g, taker := pair(t)
	defer g.Close()
	defer taker.Close()
	for i := range taker.m {
		taker.m[i] = 0xff
	}
	d := g.Demand(4)
	require.Equal(t, 4, d.Want)
	require.Positive(t, d.Waiting)
	require.Zero(t, d.Longest, "a time before the machine's start")
	taker.page.since.Store(1)
	require.Equal(t, longestWait, g.Demand(4).Longest)
	taker.page.since.Store(1<<63 - 1)
	require.Zero(t, g.Demand(4).Longest)
	g.Grant(3, new(cs.CPUSet), false)
	require.Equal(t, Grant{1, 3}, taker.Grant())
	for range 100_000 { // more than its doorbell holds
		taker.ring()
	}
	require.NoError(t, g.Wait())
}

// Descriptors that are no page are refused, and closed.
func TestForeignFiles(t *testing.T) {
	before := openFiles(t)
	for name, make := range map[string]func() int{
		"no memfd": func() int {
			fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			return fd
		},
		"may shrink": func() int { return memory(t, pageSize, 0) },
		"too short":  func() int { return memory(t, 8, seals) },
		"no magic":   func() int { return memory(t, pageSize, seals) },
	} {
		t.Run(name, func(t *testing.T) {
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(ends[1])
			_, err = NewTaker([Files]int{make(), ends[0]})
			require.ErrorIs(t, err, ErrPage)
		})
	}
	require.Equal(t, before, openFiles(t))
}

func memory(t *testing.T, size int64, seals int) int {
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	require.NoError(t, unix.Ftruncate(fd, size))
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	require.NoError(t, err)
	return fd
}

// Nothing is left of a pair.
func TestNothingLeft(t *testing.T) {
	before := openFiles(t)
	g, taker := pair(t)
	require.NoError(t, g.Close())
	require.NoError(t, taker.Close())
	require.Equal(t, before, openFiles(t))
}

func BenchmarkShow(b *testing.B) {
	g, files, err := NewGiver(4)
	require.NoError(b, err)
	defer g.Close()
	taker, err := NewTaker(files)
	require.NoError(b, err)
	defer taker.Close()
	b.ReportAllocs()
	for b.Loop() {
		taker.Show(Demand{Want: 3, Waiting: 1}, false)
		g.Demand(4)
	}
}
