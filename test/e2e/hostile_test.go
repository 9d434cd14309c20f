package e2e

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
	"junction/internal/lab/hostile"
)

// TestHostileFrames sends frames that no honest machine sends; redis must go on
// serving, as the same process with the same data.
func TestHostileFrames(t *testing.T) {
	const frames = 50_000
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i, addr := r.startServer(t, "redis")
		c := newRESP(r.mustDial(addr, time.Minute))
		require.NoError(t, setAndGet(c, 0, 100))

		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for seed := uint64(1); seed <= 3; seed++ {
			sent, err := hostile.Send(ctx, r.Client, lab.ClientNIC, r.target(t, addr.Port()), frames, seed)
			require.NoError(t, err)
			require.Greater(t, sent.Total(), frames/2)
			require.NoError(t, setAndGet(c, 0, 100), "the connection from before")
		}
		require.True(t, i.running())
		checkRedis(t, r, addr)
		checkRedis(t, r, netip.AddrPortFrom(addr6, addr.Port()))
		i.terminate(0)
		i.checkStats()
	})
}

// target describes the instance; the frames claim to be from nobody.
func (r *rig) target(t *testing.T, port uint16) hostile.Target {
	t.Helper()
	mac, err := r.Server.HardwareAddr(lab.ServerNIC)
	require.NoError(t, err)
	from, err := r.Client.HardwareAddr(lab.ClientNIC)
	require.NoError(t, err)
	return hostile.Target{
		MAC: mac, FromMAC: from,
		IPv4: addr4, FromIPv4: netip.MustParseAddr("198.18.0.77"),
		IPv6: addr6, FromIPv6: netip.MustParseAddr("fd00:18::77"),
		TCPPort: port, UDPPort: port,
	}
}
