package steer

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestVFRefused: wherever on the way the host refuses something, nothing is left of the
// VF, and when the host does not refuse it any more there is one.
func TestVFRefused(t *testing.T) {
	b := newBench(t, 1)
	b.spare.close() // else there would be a file more from some time on
	links, files := len(mustLinks(t)), openFiles(t)
	none := func() {
		t.Helper()
		require.Len(t, mustLinks(t), links)
		require.Empty(t, b.VFs())
		require.Equal(t, files, openFiles(t))
		require.ErrorIs(t, b.objects.Owners.Lookup(uint32(owner), new(uint32)), ebpf.ErrKeyNotExist)
	}
	works := func() {
		t.Helper()
		none()
		v, err := b.NewVF(t.Context(), owner, nil)
		require.NoError(t, err)
		require.NoError(t, v.Close())
		none()
	}
	works()

	// Each of what is entered in a map.
	o := b.objects
	for _, m := range []**ebpf.Map{&o.Counts, &o.Outers, &o.Devices, &o.Owners} {
		whole := *m
		closed, err := whole.Clone()
		require.NoError(t, err)
		require.NoError(t, closed.Close())
		*m = closed
		v, err := b.reserve(owner, nil)
		require.NoError(t, err)
		require.Error(t, v.make(t.Context()))
		*m = whole // so that what is left can be seen
		require.NoError(t, v.Close())
		works()
	}

	// Each of what takes a descriptor: there are ever more.
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	const most = 200 // more than it takes
	refused := make(map[string]bool)
	for n := 0; ; n++ {
		require.Less(t, n, most)
		few := limit
		few.Cur = uint64(n)
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
		v, err := b.NewVF(t.Context(), owner, nil)
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		if err == nil {
			require.NoError(t, v.Close())
			break
		}
		require.ErrorIs(t, err, unix.EMFILE)
		none()
		refused[err.Error()] = true
	}
	works()
	for what := range refused {
		t.Log(what)
	}
	require.Greater(t, len(refused), 2)
}

func mustLinks(t *testing.T) []netlink.Link {
	t.Helper()
	all, err := netlink.LinkList()
	require.NoError(t, err)
	return all
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}
