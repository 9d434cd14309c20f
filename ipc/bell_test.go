package ipc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hears tells whether a ring would wake somebody, the runtime's poller included.
func (b *bell) hears(t *testing.T) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(b.epoll), Events: unix.POLLIN}}, 0)
	require.NoError(t, err)
	return n > 0
}

// TestRingsForNothing: rings that nobody waits for wake nobody, however many there
// are, if the bell is mute; the next wait hears them.
func TestRingsForNothing(t *testing.T) {
	a, b := ordinaryEnds(t, 16, 64, 0)
	for _, c := range []struct{ ringer, hearer *bell }{{&a.tx.bell, &b.rx.bell}, {&b.rx.bell, &a.tx.bell}} {
		for range 3 {
			c.hearer.mute()
			for range 1000 {
				c.ringer.ring()
				require.False(t, c.hearer.hears(t))
			}
			require.NoError(t, c.hearer.wait())
			require.True(t, c.hearer.rang)
			require.True(t, c.hearer.hears(t))
		}
	}
}
