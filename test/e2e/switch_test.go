package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
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
	all             []aSwitch
	steps           map[string][]time.Duration
	sum             wire.SwitchReport
	during, without retransmits
}

// aSwitch is one switch.
type aSwitch struct {
	wire.SwitchResult
	begun time.Time
	took  time.Duration // until its queue was freed, if it had one
}

// retransmits counts what the client's kernel sent again.
type retransmits struct {
	timeouts, all int64
	times         int // of those counted: with time-outs, many connections' perhaps
}

func (c *retransmits) add(before, after map[string]int64) {
	timeouts := after["TcpExt:TCPTimeouts"] - before["TcpExt:TCPTimeouts"]
	c.timeouts += timeouts
	if timeouts > 0 {
		c.times++
	}
	c.all += after["Tcp:RetransSegs"] - before["Tcp:RetransSegs"]
}

func (c *record) add(s wire.SwitchResult, begun time.Time, took time.Duration) {
	c.all = append(c.all, aSwitch{s, begun, took})
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
	var kept, totals []time.Duration
	for i := range c.all {
		kept = append(kept, micros(c.all[i].BlackoutUS))
		totals = append(totals, micros(c.all[i].TotalUS))
	}
	t.Logf("%d switches, from order to end: %v", len(totals), quantiles(totals))
	t.Logf("longest that a switch kept a packet back: %v", quantiles(kept))
	during := l.gaps.of(inSwitch)
	t.Logf("longest gap that a client saw, in each switch: %v", quantiles(durations(during)))
	t.Logf("            in each time as long without one: %v", quantiles(durations(l.gaps.of(without))))
	c.logWorst(t, during)
	t.Logf("in flight %d, held to be sent %d, received %d; lost %d, reordered %d", c.sum.InFlight, c.sum.HeldTx, c.sum.HeldRx, c.sum.Lost, c.sum.Reordered)
	t.Logf("the client's time-outs %d, at %d times, segments sent again %d; in as much time without switches %d, at %d, and %d",
		c.during.timeouts, c.during.times, c.during.all, c.without.timeouts, c.without.times, c.without.all)
	for _, name := range slices.Sorted(maps.Keys(c.steps)) {
		t.Logf("%-16s %v", name, quantiles(c.steps[name]))
	}
}

// logWorst tells of the switches in which a client waited longest, and from when
// on, seen from the order, it did.
func (c *record) logWorst(t *testing.T, during []gap) {
	t.Helper()
	worst := make([]int, min(len(during), len(c.all)))
	for i := range worst {
		worst[i] = i
	}
	slices.SortFunc(worst, func(i, k int) int { return cmp.Compare(during[k].Duration, during[i].Duration) })
	const told = 3
	for _, i := range worst[:min(told, len(worst))] {
		s, g := &c.all[i], &during[i]
		t.Logf("switch %d to %v, %v, %v: client %d waited %v from %v on; %d packets were held to be sent, %d received, for %v",
			i+1, s.To, micros(s.TotalUS), s.Steps, g.client, g.Duration, g.begun.Sub(s.begun), s.HeldTx, s.HeldRx, micros(s.BlackoutUS))
	}
}

// checkTimeouts expects that switches cause no time-out of the client. There are
// other causes on a machine that has too much to do, so that as much time without
// switches may have some too; what is allowed is what two counts of the same thing
// differ by, three times the square root of their sum.
func (c *record) checkTimeouts(t *testing.T) {
	t.Helper()
	d, w := float64(c.during.times), float64(c.without.times)
	require.LessOrEqual(t, d, w+2+3*math.Sqrt(d+w), "times with time-outs of the client while there were switches")
}

// TestSwitchUnderLoad switches an instance back and forth while it serves: every
// answer is right and comes once, no connection breaks, and nobody outside sees that
// anything has moved. After some switches as much time passes without any, to tell
// apart what the machine does and what the switch does.
func TestSwitchUnderLoad(t *testing.T) {
	n := switches(t)
	for _, load := range switchLoads {
		t.Run(load.name, func(t *testing.T) {
			eachServerRig(t, func(t *testing.T, r *rig) { r.switchUnder(t, &load, n) })
		})
	}
}

func (r *rig) switchUnder(t *testing.T, load *switchLoad, n int) {
	// Not BBR, which may be the host's default: every ten seconds it nearly stops, for
	// 200 ms, whatever the other side does. Reno is the one that every kernel allows here.
	require.NoError(t, r.Client.Sysctl("net/ipv4/tcp_congestion_control", "reno"))
	// A NIC has a queue; a veth drops what is beyond 256 frames at once.
	out, err := r.Client.Command(t.Context(), need(t, "tc"), "qdisc", "replace", "dev", lab.ClientNIC, "root", "pfifo", "limit", "10000").CombinedOutput()
	require.NoError(t, err, string(out))
	l := new(running)
	load.start(t, r, l, load.ip)
	defer l.stop()
	l.goesOn(t)
	o := r.observe(load.ip.String())
	op, id := r.operator(), r.idOf("it")
	var c record
	first := r.tcpCounters()
	order := func(to protocol.Mode) wire.SwitchResult { return op.switchTo(id, to) }
	for told, i := time.Now(), 0; i < n; i += perRound {
		c.round(t, r, l, min(perRound, n-i), order)
		if time.Since(told) > progress {
			t.Logf("%d of %d switches each way", i+perRound, n)
			told = time.Now()
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
	c.checkTimeouts(t)
	l.it.terminate(load.exit)
	l.it.checkStats()
	end := l.it.report()
	t.Logf("the instance's time-outs %d, segments sent again %d; drops %v, of its rings %v, of its queues %v",
		end.TCP.Timeouts, end.TCP.Retransmits, end.Link.Drops, end.Rings.Drops, end.Queue.Drops)
	t.Logf("the network server's drops %v", r.checkAccounts().Uplink.Drops)
}

const (
	// progress is how often a long test tells how far it is.
	progress = 10 * time.Second
	// perRound is how many switches each way go before a time without any.
	perRound = 5
	// settles is how long what a switch has brought about may show: a time-out takes
	// 200 ms or more.
	settles = 300 * time.Millisecond
)

// round switches back and forth n times, and then lets as much time pass without.
func (c *record) round(t *testing.T, r *rig, l *running, n int, order func(protocol.Mode) wire.SwitchResult) {
	t.Helper()
	from := len(c.all)
	for i := range 2 * n {
		counted(r, &c.during, func() {
			begun := time.Now()
			l.gaps.begin(inSwitch)
			s := order([]protocol.Mode{protocol.Direct, protocol.Server}[i%2])
			l.gaps.begin(between)
			took := time.Since(begun)
			c.add(s, begun, took)
			time.Sleep(took / 2)
		})
	}
	counted(r, &c.during, func() { time.Sleep(settles) })
	for i := range c.all[from:] {
		counted(r, &c.without, func() {
			took := c.all[from+i].took
			l.gaps.begin(without)
			time.Sleep(took)
			l.gaps.begin(between)
			time.Sleep(took / 2)
		})
	}
	counted(r, &c.without, func() { time.Sleep(settles) })
	l.goesOn(t)
}

func counted(r *rig, to *retransmits, f func()) {
	r.t.Helper()
	before := r.tcpCounters()
	f()
	to.add(before, r.tcpCounters())
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

// TestSwitchQueueGone deletes the device of a queue that an instance uses, at either end, or the outlet by which it sends:
// it is in server mode then, with its connections, without anybody's order, and it can have
// another queue. So it is when no monitor saw it: the next one does.
func TestSwitchQueueGone(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		c := newRESP(r.mustDial(addr, 5*time.Minute))
		use := func() {
			t.Helper()
			require.NoError(t, setAndGet(c, 0, 100))
		}
		use()
		for _, c := range []struct {
			end    string
			unseen bool
		}{{"o", false}, {"i", false}, {"t", false}, {"t", true}, {"o", true}} {
			r.switchTo("redis", "direct")
			use()
			if c.unseen {
				r.monitor.kill()
			}
			devices, err := r.Server.Command(t.Context(), "sh", "-c",
				`for d in /sys/class/net/jvf*`+c.end+`; do d=${d##*/}; echo "$d"; ip link del "$d" || exit; done`).CombinedOutput()
			require.NoError(t, err, string(devices))
			require.Contains(t, string(devices), "jvf")
			deleted := time.Now()
			if c.unseen {
				r.startMonitor()
			}
			require.Eventually(t, func() bool {
				mode, switching := r.modeOf("redis")
				return mode == "server" && switching == "" && r.directQueues() == 0
			}, time.Minute, time.Millisecond)
			use()
			t.Logf("in server mode %v after its device was deleted", time.Since(deleted))
			last := r.lastSwitch("redis")
			if !c.unseen || c.end == "t" { // else the queue was not found at all
				require.Equal(t, "the queue is gone", last.Reason)
			}
			require.Equal(t, "server", last.Mode)
		}
		r.switchTo("redis", "direct")
		use()
		r.switchTo("redis", "server")
	})
}

// lastSwitch is what the status has of an instance's last switch.
func (r *rig) lastSwitch(name string) switched {
	r.t.Helper()
	var s struct {
		Last switched `json:"last_switch"`
	}
	r.ctl(&s, "show", name)
	return s.Last
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
