package tun

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"junction/direct/internal/nic"
)

// enter puts the test into a network namespace of its own, which ends with it.
func enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for ever: the thread ends with the test, and the namespace with it
	ns, err := netns.New()
	require.NoError(t, err, "these tests need root")
	require.NoError(t, ns.Close())
}

// TestMake: a TAP has as many queues as are asked for, the kernel's structures included
// when that is one, and ends with them. What exists is not taken.
func TestMake(t *testing.T) {
	enter(t)
	for _, n := range []int{1, 3} {
		fds, err := Make("tap0", n)
		require.NoError(t, err)
		require.Len(t, fds, n)
		l, err := netlink.LinkByName("tap0")
		require.NoError(t, err)
		if n == 1 {
			require.Equal(t, 1, l.Attrs().NumTxQueues)
			require.Equal(t, 1, l.Attrs().NumRxQueues)
		}
		for _, fd := range fds {
			require.NoError(t, Configure(fd))
		}
		more, err := Make("tap0", 1)
		require.ErrorIs(t, err, nic.ErrInUse)
		CloseAll(more)
		CloseAll(fds)
		_, err = netlink.LinkByName("tap0")
		require.ErrorAs(t, err, &netlink.LinkNotFoundError{})
	}
}
