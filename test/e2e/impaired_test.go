package e2e

import (
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
	"junction/internal/lab/impair"
)

// paths are bad in one way each, and in all ways. bytes is what is sent each way.
var paths = []struct {
	name  string
	bytes int64
	impair.Direction
}{
	{"loss 1%", 10 << 20, impair.Direction{Loss: 0.01}},
	{"loss 5%", 8 << 20, impair.Direction{Loss: 0.05}},
	{"reorder 5%", 10 << 20, impair.Direction{Reorder: 0.05}},
	{"duplicate 5%", 10 << 20, impair.Direction{Duplicate: 0.05}},
	{"delay 10ms", 10 << 20, impair.Direction{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}},
	{"corrupt 1%", 2 << 20, impair.Direction{Corrupt: 0.01}},
	{"everything", 1 << 20, impair.Direction{
		Loss: 0.02, Reorder: 0.02, Duplicate: 0.02, Corrupt: 0.005, Delay: 2 * time.Millisecond, Jitter: time.Millisecond,
	}},
}

// TestImpairedPath sends data each way over bad paths and compares hashes.
func TestImpairedPath(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		for _, p := range paths {
			t.Run(p.name, func(t *testing.T) {
				plan := impair.Both(42, p.Direction)
				r := newRig(t, v, lab.Options{Impair: &plan})
				i := r.start(nil, guest, "http", ":8080")
				addr := netip.AddrPortFrom(addr4, 8080)
				r.awaitPort(i, addr)
				download(t, r, addr, p.bytes)
				checkUpload(t, r.http(), addr, p.bytes)
				requireImpaired(t, p.Direction, r.Forwarder.Stats())
				i.terminate(143)
				i.checkStats()
			})
		}
	})
}

// requireImpaired makes sure that the path was as bad as it was meant to be.
func requireImpaired(t *testing.T, d impair.Direction, s impair.Stats) {
	t.Helper()
	for _, c := range []impair.DirectionStats{s.ToServer, s.ToClient} {
		require.Equal(t, d.Loss > 0, c.Lost > 0, "lost: %+v", c)
		require.Equal(t, d.Duplicate > 0, c.Duplicated > 0, "duplicated: %+v", c)
		require.Equal(t, d.Reorder > 0, c.Held > 0, "held: %+v", c)
		require.Equal(t, d.Corrupt > 0, c.Corrupted > 0, "corrupted: %+v", c)
		require.Zero(t, c.Unreadable)
	}
}

// TestImpairedRedis pipelines commands over a bad path.
func TestImpairedRedis(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		plan := impair.Both(7, impair.Direction{Loss: 0.02, Reorder: 0.02, Duplicate: 0.02})
		r := newRig(t, v, lab.Options{Impair: &plan})
		i, addr := r.startServer(t, "redis")
		c := newRESP(r.mustDial(addr, 2*time.Minute))
		for from := 0; from < 5000; from += 500 {
			require.NoError(t, setAndGet(c, from, 500))
		}
		i.terminate(0)
	})
}

// TestPeerVanishes expects an instance to serve on when a client's packets stop
// in the middle of a download.
func TestPeerVanishes(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i, addr := r.startServer(t, "go")
		c := r.mustDial(addr, time.Minute)
		_, err := io.WriteString(c, "GET /data?seed=1&n=1000000000 HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, 1<<20))
		require.NoError(t, err)
		require.NoError(t, r.Client.DelAddr(lab.ClientNIC, lab.ClientAddr4))
		checkUpload(t, r.http(), netip.AddrPortFrom(addr6, addr.Port()), 5<<20)
		i.terminate(143)
	})
}
