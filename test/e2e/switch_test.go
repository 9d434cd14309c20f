package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// switches is how often an instance is switched each way: JUNCTION_E2E_SWITCHES or 10.
func switches(t *testing.T) int {
	n := 10
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

// switchTo switches an instance. On a machine that has too much to do a switch may
// be rolled back, to be tried again; not for ever.
func (r *rig) switchTo(name, mode string) (s switched) {
	r.t.Helper()
	const attempts = 5
	for range attempts {
		order := r.beginSwitch(name, mode, "--wait")
		order.exit()
		s = switched{} // what is left out is as it was
		require.NoError(r.t, json.Unmarshal([]byte(order.stdout.String()), &s), "%s", order.stderr)
		require.Zero(r.t, s.Duplicates)
		if s.Reason == "" {
			require.Zero(r.t, order.code)
			require.Equal(r.t, mode, s.Mode)
			return s
		}
		require.NotEqual(r.t, mode, s.Mode)
		r.t.Logf("rolled back: %s", s.Reason)
	}
	require.Empty(r.t, s.Reason)
	return s
}

// operator is an order's other end: the monitor's socket.
type operator struct {
	r *rig
	o *client.Operator
}

func (r *rig) operator() *operator {
	r.t.Helper()
	o, err := client.DialOperator(r.t.Context(), r.socket)
	require.NoError(r.t, err)
	r.t.Cleanup(o.Close)
	return &operator{r, o}
}

// switchTo is rig.switchTo without a process of its own.
func (o *operator) switchTo(id uint32, to protocol.Mode) wire.SwitchResult {
	o.r.t.Helper()
	return o.order(wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: to})
}

// order orders a switch, and waits if it must.
func (o *operator) order(order wire.SwitchOrder) (s wire.SwitchResult) {
	t := o.r.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const attempts = 5
	order.Wait = true
	for range attempts {
		s = wire.SwitchResult{} // what is left out is as it was
		require.NoError(t, o.o.Ask(ctx, "switch", order, &s))
		require.Zero(t, s.Duplicates)
		if s.Reason == "" {
			require.Equal(t, order.Mode, s.Mode)
			return s
		}
		t.Logf("rolled back: %s", s.Reason)
	}
	require.Empty(t, s.Reason)
	return s
}

// idOf is the number of an instance.
func (r *rig) idOf(name string) uint32 {
	r.t.Helper()
	for _, i := range r.status().Instances {
		if i.Name == name {
			return i.ID
		}
	}
	r.t.Fatalf("no instance %s", name)
	return 0
}

// record sums up switches.
type record struct {
	blackouts, totals []time.Duration
	steps             map[string][]time.Duration
	sum               wire.SwitchReport
	during, between   retransmits
}

// retransmits counts what the client's kernel sent again.
type retransmits struct {
	timeouts, all int64
	windows       int // of time, with time-outs
}

func (c *retransmits) add(before, after map[string]int64) {
	timeouts := after["TcpExt:TCPTimeouts"] - before["TcpExt:TCPTimeouts"]
	c.timeouts += timeouts
	if timeouts > 0 {
		c.windows++
	}
	c.all += after["Tcp:RetransSegs"] - before["Tcp:RetransSegs"]
}

func (c *record) add(s wire.SwitchResult) {
	c.blackouts = append(c.blackouts, micros(s.BlackoutUS))
	c.totals = append(c.totals, micros(s.TotalUS))
	if c.steps == nil {
		c.steps = make(map[string][]time.Duration)
	}
	for _, step := range s.Steps {
		name := fmt.Sprintf("%v/%s", s.To, step.Name)
		c.steps[name] = append(c.steps[name], micros(step.US))
	}
	c.sum.InFlight += s.InFlight
	c.sum.Lost += s.Lost
	c.sum.Reordered += s.Reordered
	c.sum.HeldTx += s.HeldTx
	c.sum.HeldRx += s.HeldRx
}

func micros(us float64) time.Duration { return time.Duration(us * float64(time.Microsecond)) }

func (c *record) log(t *testing.T, l *running) {
	t.Helper()
	t.Logf("%d switches, from request to end: %v", len(c.totals), quantiles(c.totals))
	t.Logf("longest that a switch kept a packet back: %v", quantiles(c.blackouts))
	during, between := l.gaps.split()
	t.Logf("longest gap that a client saw, in each switch: %v", quantiles(during))
	t.Logf("                in each time between switches: %v", quantiles(between))
	t.Logf("in flight %d, held to be sent %d, received %d; lost %d, reordered %d", c.sum.InFlight, c.sum.HeldTx, c.sum.HeldRx, c.sum.Lost, c.sum.Reordered)
	t.Logf("the client's time-outs %d, in %d switches, segments sent again %d; between switches %d, in %d, and %d",
		c.during.timeouts, c.during.windows, c.during.all, c.between.timeouts, c.between.windows, c.between.all)
	for _, name := range slices.Sorted(maps.Keys(c.steps)) {
		t.Logf("%-16s %v", name, quantiles(c.steps[name]))
	}
}

// TestSwitchUnderLoad switches an instance back and forth while it serves: every
// answer is right and comes once, no connection breaks, and nobody outside sees that
// anything has moved. Between two switches as much time passes as a switch takes,
// to tell apart what the machine does and what the switch does.
func TestSwitchUnderLoad(t *testing.T) {
	n := switches(t)
	for _, load := range switchLoads {
		t.Run(load.name, func(t *testing.T) {
			eachServerRig(t, func(t *testing.T, r *rig) { r.switchUnder(t, &load, n) })
		})
	}
}

func (r *rig) switchUnder(t *testing.T, load *switchLoad, n int) {
	l := new(running)
	load.start(t, r, l, load.ip)
	defer l.stop()
	l.goesOn(t)
	o := r.observe(load.ip.String())
	op, id := r.operator(), r.idOf("it")
	var c record
	first := r.tcpCounters()
	for range n {
		for _, to := range []protocol.Mode{protocol.Direct, protocol.Server} {
			before := r.tcpCounters()
			l.gaps.phase.Add(1)
			s := op.switchTo(id, to)
			l.gaps.phase.Add(1)
			after := r.tcpCounters()
			c.add(s)
			c.during.add(before, after)
			time.Sleep(time.Duration(s.TotalUS) * time.Microsecond) // the time to compare with
			l.goesOn(t)
			c.between.add(after, r.tcpCounters())
		}
	}
	last := r.tcpCounters()
	l.stop()
	c.log(t, l)
	if l.sum != nil {
		t.Log(l.sum())
	}
	o.check(t)
	require.Equal(t, first["Tcp:EstabResets"], last["Tcp:EstabResets"], "connections reset")
	// Time-outs have other causes too on a machine that has too much to do. What a
	// switch caused, it would cause in most of them.
	require.LessOrEqual(t, c.during.windows, c.between.windows+n, "switches with time-outs of the client")
	l.it.terminate(load.exit)
	l.it.checkStats()
	end := l.it.report()
	t.Logf("the instance's time-outs %d, segments sent again %d; drops %v, of its rings %v, of its queues %v",
		end.TCP.Timeouts, end.TCP.Retransmits, end.Link.Drops, end.Rings.Drops, end.Queue.Drops)
	t.Logf("the network server's drops %v", r.checkAccounts().Uplink.Drops)
}

// goesOn waits until more has been answered.
func (l *running) goesOn(t *testing.T) {
	t.Helper()
	count := l.done.Load()
	require.Eventually(t, func() bool { return l.done.Load() > count+100 || t.Failed() }, time.Minute, time.Millisecond)
	if t.Failed() {
		t.FailNow()
	}
}

// modeOf is the mode that an instance is in.
func (r *rig) modeOf(name string) (mode, switching string) {
	r.t.Helper()
	var s struct {
		Instances []struct {
			Name      string `json:"name"`
			Mode      string `json:"mode"`
			Switching string `json:"switching"`
		} `json:"instances"`
	}
	r.ctl(&s, "ls")
	for _, i := range s.Instances {
		if i.Name == name {
			return i.Mode, i.Switching
		}
	}
	return "", ""
}

// beginSwitch orders a switch and does not wait for it.
func (r *rig) beginSwitch(name, mode string, flags ...string) *instance {
	c := r.Server.Command(context.Background(), filepath.Join(commands, "junction_ctl"),
		append([]string{"--json", "--socket", r.socket, "switch", name, "--mode", mode}, flags...)...)
	return launch(r.t, c, c.Cmd)
}

// TestSwitchFaults kills the network server, then the monitor, then the instance
// while it is switched, at random moments: it is in one mode afterwards and serves,
// and no queue is lost.
func TestSwitchFaults(t *testing.T) {
	rounds := max(3, switches(t)/4)
	const victims = 10 // more than there are queues
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		replies, stop := r.load(t, addr, 4)
		goesOn := func() {
			t.Helper()
			count := replies.Load()
			require.Eventually(t, func() bool { return replies.Load() > count+100 }, 30*time.Second, time.Millisecond)
		}
		modes := []string{"direct", "server"}
		rolledBack := 0
		for n := range rounds {
			before, _ := r.modeOf("redis")
			to := modes[n%2]
			server := r.status().Server.PID
			order := r.beginSwitch("redis", to)
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // a random moment
			require.NoError(t, syscall.Kill(server, syscall.SIGKILL))
			r.awaitServer(server)
			failed := order.exit() != 0
			mode, switching := r.modeOf("redis")
			require.Empty(t, switching)
			want := to
			if failed {
				want = before
				rolledBack++
				require.Contains(t, order.stdout.String(), `"reason"`)
			}
			require.Equal(t, want, mode, order.stdout)
			goesOn()
		}
		t.Logf("network server killed %d times, %d switches rolled back", rounds, rolledBack)

		for n := range rounds {
			order := r.beginSwitch("redis", modes[n%2])
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			r.monitor.kill()
			order.exit()
			goesOn()
			r.startMonitor()
			goesOn()
			r.switchTo("redis", "direct")
			goesOn()
			if n%2 == 1 {
				r.switchTo("redis", "server")
			}
		}
		stop()

		for range victims {
			i := r.startNamed("victim", guest, "tcpecho", ":7")
			i.await("ready")
			order := r.beginSwitch("victim", "direct")
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			i.kill()
			order.exit()
			require.Eventually(t, func() bool { mode, _ := r.modeOf("victim"); return mode == "" }, 30*time.Second, time.Millisecond)
		}
		r.switchTo("redis", "server")
		require.Eventually(t, func() bool { return r.directQueues() == 0 }, 30*time.Second, 10*time.Millisecond, "queues left over")
	})
}

// TestSwitchQueueGone deletes the device of a queue that an instance uses: an order to
// go to server mode gets it there, with its connections, and it can have another queue.
func TestSwitchQueueGone(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		c := newRESP(r.mustDial(addr, 5*time.Minute))
		use := func() {
			t.Helper()
			require.NoError(t, setAndGet(c, 0, 100))
		}
		use()
		r.switchTo("redis", "direct")
		use()
		devices, err := r.Server.Command(t.Context(), "sh", "-c",
			`for d in /sys/class/net/jvf*o; do d=${d##*/}; echo "$d"; ip link del "$d" || exit; done`).CombinedOutput()
		require.NoError(t, err, string(devices))
		require.Contains(t, string(devices), "jvf")
		var s switched
		const attempts = 5 // a step may take too long on a machine that has too much to do
		for n := 0; n < attempts && s.Mode != "server"; n++ {
			order := r.beginSwitch("redis", "server", "--wait")
			order.exit()
			require.NoError(t, json.Unmarshal([]byte(order.stdout.String()), &s), "%s", order.stderr)
		}
		require.Equal(t, "server", s.Mode)
		require.Contains(t, s.Reason, "the queue is gone")
		use()
		require.Zero(t, r.directQueues())
		r.switchTo("redis", "direct")
		use()
		r.switchTo("redis", "server")
	})
}

// directQueues counts the queues of instances.
func (r *rig) directQueues() int {
	r.t.Helper()
	var s struct {
		Queues []json.RawMessage `json:"direct_queues"`
	}
	r.ctl(&s, "status")
	return len(s.Queues)
}
