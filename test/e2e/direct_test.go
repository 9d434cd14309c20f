package e2e

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// fewQueues is a rig in server mode whose monitor has other flags.
func fewQueues(t *testing.T, engine string, flags ...string) *rig {
	r := newRig(t, variant{engine: engine}, lab.Options{})
	r.driver = serverMode
	r.startMonitor(flags...)
	return r
}

// TestBeginDirect: instances begin in direct mode on queues that the monitor gives.
// Without a free one they end, saying so, or wait; they are switched like others.
func TestBeginDirect(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		r := fewQueues(t, engine, "--direct-queues", "1")
		begin := func(name string, more ...string) *instance {
			return r.start(append([]string{"--mode", "direct", "--name", name}, more...), guest, "tcpecho", ":7")
		}
		first := begin("first")
		first.await("ready")
		r.inMode("first", "direct", "")
		r.awaitPort(first, netip.AddrPortFrom(addr4, 7))

		second := begin("second")
		require.Equal(t, 1, second.exit())
		require.Contains(t, second.stderr.String(), "--mode direct: ")
		require.Contains(t, second.stderr.String(), "all 1 are in use")
		require.Contains(t, second.stderr.String(), "--wait")
		require.Empty(t, second.stdout.String(), "the program has run")

		interrupted := begin("interrupted", "--wait")
		r.inMode("interrupted", "server", waits)
		interrupted.signal(syscall.SIGINT)
		require.Equal(t, 130, interrupted.exit())
		r.inMode("interrupted", "", "")

		third := begin("third", "--wait", "--ip", "198.18.0.130")
		r.inMode("third", "server", waits)
		require.Empty(t, third.stdout.String(), "the program has run")
		first.terminate(143)
		require.Equal(t, "direct", first.checkStats().Mode)
		third.await("ready")
		r.inMode("third", "direct", "")
		addr := netip.MustParseAddrPort("198.18.0.130:7")
		r.awaitPort(third, addr)
		r.switchTo("third", "server")
		r.awaitPort(third, addr)
		third.terminate(143)
		third.checkStats()
		require.Zero(t, r.directQueues())
	})
}

const waits = "to direct: waits for a queue"

// inMode waits until an instance is in a mode, and in a step of a switch, or in none.
func (r *rig) inMode(name, mode, switching string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		m, s := r.modeOf(name)
		return m == mode && s == switching
	}, readyTimeout, time.Millisecond)
}

// TestSwitchWaitGivenUp: who waits for a queue and is interrupted, or killed, waits no
// more: the next queue is not for that instance.
func TestSwitchWaitGivenUp(t *testing.T) {
	r := fewQueues(t, engines[0], "--direct-queues", "1")
	for n, name := range []string{"has", "waits"} {
		i := r.startNamed(name, guest, "tcpecho", fmt.Sprint(":", 7+n))
		i.await("ready")
		require.NoError(t, r.dialEcho(netip.AddrPortFrom(addr4, uint16(7+n)), "hello"))
	}
	r.switchTo("has", "direct")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		order := r.beginSwitch("waits", "direct", "--wait")
		r.inMode("waits", "server", waits)
		order.signal(sig)
		require.NotZero(t, order.exit())
		require.Empty(t, order.stdout.String())
		r.inMode("waits", "server", "")
	}
	r.switchTo("has", "server")
	r.inMode("waits", "server", "")
	require.Zero(t, r.directQueues())
	r.switchTo("has", "direct")
	r.inMode("waits", "server", "")
}

// autoStatus is what junction_ctl tells of the policy.
type autoStatus struct {
	On        bool    `json:"on"`
	RatePPS   float64 `json:"rate_pps"`
	Pinned    int     `json:"pinned"`
	Decisions []struct {
		Name    string  `json:"name"`
		To      string  `json:"to"`
		RatePPS float64 `json:"rate_pps"`
		Reason  string  `json:"reason"`
		Outcome string  `json:"outcome"`
	} `json:"decisions"`
}

// TestAuto: the policy gives the queue to the instance that is busy, takes it back
// when it is not, and leaves alone what was switched by hand.
func TestAuto(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		r := fewQueues(t, engine, "--direct-queues", "1", "--auto", "--auto-rate", "100")
		redis, addr := r.startServer(t, "redis", "--name", "redis")
		calm := r.startNamed("calm", guest, "tcpecho", ":7")
		calm.await("ready")
		replies, stop := r.load(t, addr, 8)
		r.inMode("redis", "direct", "")
		count := replies.Load()
		require.Eventually(t, func() bool { return replies.Load() > count+100 }, readyTimeout, time.Millisecond)
		stop()
		r.inMode("redis", "server", "")
		var s struct {
			Auto autoStatus `json:"auto"`
		}
		r.ctl(&s, "status")
		require.True(t, s.Auto.On)
		for _, d := range s.Auto.Decisions {
			t.Logf("%s to %s at %.0f packets/s: %s: %s", d.Name, d.To, d.RatePPS, d.Reason, d.Outcome)
			require.Equal(t, "redis", d.Name)
		}
		require.GreaterOrEqual(t, len(s.Auto.Decisions), 2)
		mode, _ := r.modeOf("calm")
		require.Equal(t, "server", mode)

		// What operators have said outlives the monitor.
		r.switchTo("redis", "direct")
		r.ctl(&s.Auto, "switch", "--auto", "on", "--rate", "200")
		require.Equal(t, 1, s.Auto.Pinned)
		r.monitor.kill()
		r.startMonitor("--direct-queues", "1")
		r.ctl(&s, "status")
		require.True(t, s.Auto.On)
		require.Equal(t, 200.0, s.Auto.RatePPS)
		require.Equal(t, 1, s.Auto.Pinned)
		r.inMode("redis", "direct", "")
		var i struct {
			Pinned bool `json:"pinned"`
		}
		r.ctl(&i, "switch", "redis", "--mode", "auto")
		require.False(t, i.Pinned)
		r.ctl(&s.Auto, "switch", "--auto", "off")
		require.False(t, s.Auto.On)
		redis.terminate(0)
		calm.terminate(143)
		redis.checkStats()
	})
}
