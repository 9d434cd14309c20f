package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/internal/lab"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// places are those of a switch, by where it goes to, as the monitor comes to them
// (switch/protocol): what it does and the answers that it gets.
var places = map[protocol.Mode][]string{
	protocol.Direct: {
		"make", "send prepare", "mark 0 by direct", "received prepared", "send align", "mark 1 by server", "received aligned",
		"steer direct", "send move", "mark 2 by server", "received moved", "send finish", "received finished", "report",
	},
	protocol.Server: {
		"send prepare", "mark 0 by server", "received prepared", "send align", "mark 1 by direct", "received aligned",
		"steer server", "send move", "mark 2 by direct", "received moved", "send finish", "received finished", "drop", "report",
	},
}

// before compares places of a switch.
func before(to protocol.Mode, a, b string) bool {
	return slices.Index(places[to], a) < slices.Index(places[to], b)
}

// faults is what the tests of faults at each step have: a redis that is talked to all
// the time, and a monitor that stops where they want it to.
type faults struct {
	*rig
	*steps
	t     *testing.T
	redis uint32 // its number
	talk  *atomic.Uint64
	bare  []string // the server's devices without a queue
}

// withFaults runs f. Then nobody has lost a connection, nobody outside has seen that
// anything has moved, and nothing is left.
func withFaults(t *testing.T, f func(x *faults)) {
	r := newRig(t, variant{engine: engines[0], driver: "afxdp"}, lab.Options{})
	r.driver = serverMode
	x := &faults{rig: r, t: t, bare: r.links()}
	x.steps = r.startSteps()
	i, addr := r.startServer(t, "redis", "--name", "redis")
	x.redis = r.idOf("redis")
	o := r.observe(addr4.String(), addr6.String())
	l := new(running)
	x.talk = &l.done
	for n, a := range []netip.AddrPort{addr, netip.AddrPortFrom(addr6, addr.Port())} {
		c := newRESP(r.mustDial(a, 10*time.Minute))
		l.client(t, func(k int) error {
			time.Sleep(500 * time.Microsecond) // the processors have other things to do, too
			return setAndGet(c, (2*k+n)%10_000, 1)
		})
	}
	f(x)
	x.goesOn()
	l.stop()
	o.check(t)
	x.switchTo(protocol.Server)
	i.terminate(0)
	i.checkStats()
	x.monitor.terminate(0)
	require.NoDirExists(t, r.socket+".state")
	require.Equal(t, x.bare, r.links())
	require.Eventually(t, func() bool { return !r.hasXDP() }, readyTimeout, time.Millisecond)
}

// order orders a switch; the result comes when it has ended, or the monitor has.
type order struct {
	result wire.SwitchResult
	err    error
}

func (x *faults) order(id uint32, to protocol.Mode) <-chan order {
	x.t.Helper()
	op, err := client.DialOperator(x.t.Context(), x.socket)
	require.NoError(x.t, err)
	done := make(chan order, 1)
	go func() {
		defer op.Close()
		var o order
		o.err = op.Ask(context.Background(), "switch", wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: to}, &o.result)
		done <- o
	}()
	return done
}

func (x *faults) await(done <-chan order) order {
	x.t.Helper()
	select {
	case o := <-done:
		return o
	case <-time.After(readyTimeout):
		x.t.Fatal("the order is not answered")
		return order{}
	}
}

// switchTo switches redis, with nothing in the way but the machine's having too much to do.
func (x *faults) switchTo(to protocol.Mode) {
	x.t.Helper()
	const attempts = 5
	for n := 1; ; n++ {
		o := x.await(x.order(x.redis, to))
		require.NoError(x.t, o.err)
		if o.result.Reason == "" {
			require.Equal(x.t, to, o.result.Mode)
			return
		}
		require.Less(x.t, n, attempts, o.result.Reason)
		x.t.Log("rolled back:", o.result.Reason)
	}
}

// goesOn waits until redis has answered what was asked just now.
func (x *faults) goesOn() {
	x.t.Helper()
	count := x.talk.Load()
	require.Eventually(x.t, func() bool { return x.talk.Load() > count+10 || x.t.Failed() }, time.Minute, time.Millisecond)
	require.False(x.t, x.t.Failed())
}

// ends checks that redis is in a mode, that it is what the monitor says and has, that
// all can reach it, and that another switch, and back, works.
func (x *faults) ends(mode protocol.Mode) {
	x.t.Helper()
	x.goesOn()
	now, switching := x.modeOf("redis")
	require.Equal(x.t, mode.String(), now)
	require.Empty(x.t, switching)
	x.queues(map[protocol.Mode]int{protocol.Direct: 1}[mode])
	for _, a := range []netip.Addr{addr4, addr6} {
		c, err := x.dial(netip.AddrPortFrom(a, 6379))
		require.NoError(x.t, err)
		require.NoError(x.t, setAndGet(newRESP(c), 20_000, 5))
		_ = c.Close()
	}
	x.switchTo(1 - mode)
	x.goesOn()
}

// queues checks that there are so many: in the status, as devices and in the maps of
// the steering program. Each has a pair of devices, and an outlet or none.
func (x *faults) queues(n int) {
	x.t.Helper()
	type held struct {
		Queues, Devices int
		Entries         map[string]int
	}
	var is, want held
	require.Eventually(x.t, func() bool { // one of which nobody is told ends a little later
		links := x.links()
		outlets := min(n, count(links, "t"))
		want = held{n, len(x.bare) + 2*n + outlets, map[string]int{"junction_owners": n, "junction_outers": n + outlets, "junction_devs": n}}
		is = held{x.directQueues(), len(links), x.entries()}
		return reflect.DeepEqual(want, is)
	}, readyTimeout, 5*time.Millisecond, "%+v, expected %+v", &is, &want)
}

// count counts devices of queues, by what their names end with: o and i are those of a
// pair, t an outlet.
func count(links []string, end string) (n int) {
	for _, name := range links {
		if strings.HasPrefix(name, "jvf") && strings.HasSuffix(name, end) {
			n++
		}
	}
	return n
}

// entries counts what is in the steering program's maps about queues.
func (x *faults) entries() map[string]int {
	x.t.Helper()
	counts := make(map[string]int)
	infos, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(x.monitor.cmd.Process.Pid), "fdinfo", "*"))
	require.NoError(x.t, err)
	for _, f := range infos {
		b, _ := os.ReadFile(f) // else it was closed meanwhile
		var id ebpf.MapID
		for lines := bufio.NewScanner(strings.NewReader(string(b))); lines.Scan() && id == 0; {
			_, _ = fmt.Sscanf(lines.Text(), "map_id: %d", &id)
		}
		m, err := ebpf.NewMapFromID(id)
		if id == 0 || err != nil {
			continue
		}
		info, err := m.Info()
		require.NoError(x.t, err)
		if slices.Contains([]string{"junction_owners", "junction_outers", "junction_devs"}, info.Name) {
			counts[info.Name] = 0
			key, value := make([]byte, info.KeySize), make([]byte, info.ValueSize)
			for all := m.Iterate(); all.Next(&key, &value); {
				counts[info.Name]++
			}
		}
		_ = m.Close()
	}
	return counts
}

// kept is what the monitor and the network server hold while nothing is going on.
func (x *faults) kept() [2]int {
	pid := x.rig.status().Server.PID
	return [2]int{openFiles(x.t, x.monitor.cmd.Process.Pid), openFiles(x.t, pid)}
}

// keepsNoMore checks that they do not hold more than they did.
func (x *faults) keepsNoMore(than [2]int) {
	x.t.Helper()
	var now [2]int
	require.Eventually(x.t, func() bool {
		now = x.kept()
		return now[0] <= than[0] && now[1] <= than[1]
	}, readyTimeout, 10*time.Millisecond, "open files of the monitor and the network server: %v, before %v", &now, than)
}

// each runs f for each place of each way, beginning in the mode that is left.
func (x *faults) each(f func(to protocol.Mode, place string)) {
	for _, to := range []protocol.Mode{protocol.Direct, protocol.Server} {
		for _, place := range places[to] {
			x.sub(fmt.Sprintf("to %v/%s", to, place), func() { f(to, place) })
		}
	}
}

// sub runs f as a subtest, without which the others make no sense.
func (x *faults) sub(name string, f func()) {
	outer := x.t
	if !outer.Run(name, func(t *testing.T) {
		x.t = t
		defer func() { x.t = outer }()
		f()
	}) {
		outer.FailNow()
	}
}

// from has redis in the mode from which a switch goes.
func (x *faults) from(to protocol.Mode) {
	if mode, _ := x.modeOf("redis"); mode == to.String() {
		x.switchTo(1 - to)
	}
}

// TestSwitchOrdererGone: an order whose sender is interrupted, or killed, is carried out.
func TestSwitchOrdererGone(t *testing.T) {
	withFaults(t, func(x *faults) {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			for _, to := range []protocol.Mode{protocol.Direct, protocol.Server} {
				x.from(to)
				x.stopAt("received prepared")
				order := x.beginSwitch("redis", to.String())
				x.steps.await()
				order.signal(sig)
				require.NotZero(t, order.exit())
				x.release()
				x.settled("redis")
				x.ends(to)
			}
		}
	})
}

// instancePID is an instance's process.
func (r *rig) instancePID(name string) int {
	r.t.Helper()
	for _, i := range r.status().Instances {
		if i.Name == name {
			return i.PID
		}
	}
	r.t.Fatalf("no instance %s", name)
	return 0
}

// TestSwitchQueueDeletedAtEachStep deletes the queue's device there: whichever way the
// switch goes, the instance is in server mode in the end.
func TestSwitchQueueDeletedAtEachStep(t *testing.T) {
	withFaults(t, func(x *faults) {
		x.each(func(to protocol.Mode, place string) {
			if place == "make" || to == protocol.Server && place == "report" {
				return // there is none
			}
			x.from(to)
			x.stopAt(place)
			done := x.order(x.redis, to)
			x.steps.await()
			require.Equal(x.t, 1, x.deleteQueues())
			x.release()
			o := x.await(done)
			require.NoError(x.t, o.err)
			require.True(x.t, o.result.Reason != "" || o.result.Mode == to)
			require.Eventually(x.t, func() bool { mode, s := x.modeOf("redis"); return mode == "server" && s == "" }, readyTimeout, time.Millisecond)
			x.ends(protocol.Server)
		})
	})
}

// deleteQueues deletes the devices of all queues and returns how many there were.
func (x *faults) deleteQueues() (n int) {
	x.t.Helper()
	require.NoError(x.t, x.Server.Do(func() error {
		all, err := netlink.LinkList()
		for _, l := range all {
			if name := l.Attrs().Name; err == nil && strings.HasPrefix(name, "jvf") && strings.HasSuffix(name, "o") {
				err = netlink.LinkDel(l)
				n++
			}
		}
		return err
	}))
	return n
}

// TestSwitchQueueRefused: a queue that the host does not let the monitor make is refused
// by name, and made when it does.
func TestSwitchQueueRefused(t *testing.T) {
	withFaults(t, func(x *faults) {
		x.orphan() // its name is taken
		o := x.await(x.order(x.redis, protocol.Direct))
		require.NoError(t, o.err)
		require.Contains(t, o.result.Reason, "make VF 0 for instance")
		require.Contains(t, o.result.Reason, "exists")
		require.Equal(t, protocol.Server, o.result.Mode)
		x.goesOn()
		require.Equal(t, 1, x.deleteQueues())
		x.switchTo(protocol.Direct)
		x.ends(protocol.Direct)
		require.Empty(t, x.lastSwitch("redis").Reason)
	})
}
