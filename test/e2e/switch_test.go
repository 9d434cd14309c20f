package e2e

import (
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// switches is how often an instance is switched each way: JUNCTION_E2E_SWITCHES or 20.
func switches(t *testing.T) int {
	n := 20
	if testing.Short() {
		n = 5
	}
	if s := os.Getenv("JUNCTION_E2E_SWITCHES"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	return n
}

// switched is what junction_ctl switch prints.
type switched struct {
	Mode       string  `json:"mode"`
	Reason     string  `json:"reason"`
	BlackoutUS float64 `json:"blackout_us"`
	TotalUS    float64 `json:"total_us"`
	InFlight   uint64  `json:"in_flight"`
	Lost       uint64  `json:"lost"`
	Duplicates uint64  `json:"duplicates"`
	Reordered  uint64  `json:"reordered"`
	HeldTx     uint64  `json:"held_tx"`
	HeldRx     uint64  `json:"held_rx"`
	Steps      []struct {
		Name string  `json:"name"`
		US   float64 `json:"us"`
	} `json:"steps"`
}

// switchTo switches an instance, which must work.
func (r *rig) switchTo(name, mode string) (s switched) {
	r.t.Helper()
	r.ctl(&s, "switch", name, "--mode", mode, "--wait")
	require.Empty(r.t, s.Reason)
	require.Equal(r.t, mode, s.Mode)
	require.Zero(r.t, s.Duplicates)
	return s
}

// record sums up switches.
type record struct {
	blackouts, totals []time.Duration
	sum               switched
}

func (c *record) add(s switched) {
	c.blackouts = append(c.blackouts, time.Duration(s.BlackoutUS*1e3))
	c.totals = append(c.totals, time.Duration(s.TotalUS*1e3))
	c.sum.InFlight += s.InFlight
	c.sum.Lost += s.Lost
	c.sum.Reordered += s.Reordered
	c.sum.HeldTx += s.HeldTx
	c.sum.HeldRx += s.HeldRx
}

func (c *record) log(t *testing.T) {
	t.Helper()
	t.Logf("%d switches: blackout %v, max %v; from request to end %v", len(c.blackouts), quantiles(c.blackouts), c.blackouts[len(c.blackouts)-1], quantiles(c.totals))
	t.Logf("in flight %d, held to be sent %d, received %d; lost %d, reordered %d", c.sum.InFlight, c.sum.HeldTx, c.sum.HeldRx, c.sum.Lost, c.sum.Reordered)
}

// TestSwitchRedis switches redis back and forth under load, on the shared address
// and on one of its own: every reply is right.
func TestSwitchRedis(t *testing.T) {
	n := switches(t)
	for _, own := range []bool{false, true} {
		name := map[bool]string{false: "shared", true: "dedicated"}[own]
		t.Run(name, func(t *testing.T) {
			eachServerRig(t, func(t *testing.T, r *rig) {
				addr := netip.AddrPortFrom(addr4, 6379)
				flags := []string{"--name", "redis"}
				if own {
					addr = netip.MustParseAddrPort("198.18.0.130:6379")
					flags = append(flags, "--ip", addr.Addr().String())
				}
				i := r.start(flags, need(t, "redis-server"), "--protected-mode", "no", "--save", "")
				i.await("Ready to accept connections")
				replies, stop := r.load(t, addr, 8)
				var c record
				for range n {
					for _, mode := range []string{"direct", "server"} {
						count := replies.Load()
						c.add(r.switchTo("redis", mode))
						require.Eventually(t, func() bool { return replies.Load() > count+100 }, 30*time.Second, time.Millisecond)
					}
				}
				stop()
				c.log(t)
				i.terminate(0)
			})
		})
	}
}
