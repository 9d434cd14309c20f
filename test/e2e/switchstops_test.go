package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/switch/protocol"
)

// inStep waits until a switch of an instance is in a step.
func (x *faults) inStep(name string, to protocol.Mode, step string) {
	x.t.Helper()
	want := fmt.Sprintf("to %v: %s", to, step)
	require.Eventually(x.t, func() bool { _, s := x.modeOf(name); return s == want }, readyTimeout, time.Millisecond, want)
}

// halt stops a process and waits until all its threads have stopped.
func (x *faults) halt(pid int) {
	x.t.Helper()
	require.NoError(x.t, syscall.Kill(pid, syscall.SIGSTOP))
	x.halted(pid)
}

// halted waits until all threads of a process have stopped.
func (x *faults) halted(pid int) {
	x.t.Helper()
	require.Eventually(x.t, func() bool {
		tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*"))
		return err == nil && !slices.ContainsFunc(tasks, func(dir string) bool {
			f := statFields(dir)
			return len(f) > 0 && f[0] != "T"
		})
	}, readyTimeout, time.Millisecond)
}

// settled waits until no switch of an instance is under way.
func (x *faults) settled(name string) {
	x.t.Helper()
	require.Eventually(x.t, func() bool {
		mode, switching := x.modeOf(name)
		return mode != "" && switching == ""
	}, readyTimeout, 5*time.Millisecond)
}

// carriedOut counts what became of switches that were held up.
type carriedOut struct{ done, rolledBack int }

// ends checks how one has ended: either as it was ordered, or with a reason.
func (c *carriedOut) ends(x *faults, to protocol.Mode, o order) {
	x.t.Helper()
	require.NoError(x.t, o.err)
	require.Equal(x.t, o.result.Mode == to, o.result.Reason == "")
	if o.result.Reason == "" {
		c.done++
	} else { // the machine has too much to do
		c.rolledBack++
		x.t.Log("rolled back:", o.result.Reason)
	}
	x.ends(o.result.Mode)
}

func (c *carriedOut) mostGoOn(t *testing.T) {
	t.Helper()
	require.Less(t, c.rolledBack, c.done, "most go on")
}

// TestSwitchStoppedAtEachStep stops the instance there, then the monitor, and lets
// them go on later: the switch goes on too. While it is under way, no other is begun.
func TestSwitchStoppedAtEachStep(t *testing.T) {
	withFaults(t, func(x *faults) {
		var c carriedOut
		x.each(func(to protocol.Mode, place string) {
			x.from(to)
			pid := x.instancePID("redis")
			x.stopAt(place)
			order := x.order(x.redis, to)
			x.steps.await()
			if strings.HasPrefix(place, "send") {
				x.halt(pid)
				x.release()
				x.busy(to, strings.TrimPrefix(place, "send "))
				require.NoError(x.t, syscall.Kill(pid, syscall.SIGCONT))
			} else {
				x.halt(x.monitor.cmd.Process.Pid)
				x.goesOn()
				x.monitor.signal(syscall.SIGCONT)
				x.release()
			}
			o := x.await(order)
			c.ends(x, to, o)
		})
		c.mostGoOn(t)
	})
}

// needed is up to which place a switch that goes somewhere needs the network server, and
// the steps in which it waits for it, with the places from which on that is so.
var needed = map[protocol.Mode]struct {
	until string
	waits [][2]string
}{
	protocol.Direct: {"received moved", [][2]string{{"make", "align"}, {"received aligned", "move"}}},
	protocol.Server: {"received prepared", [][2]string{{"send prepare", "prepare"}}},
}

// TestSwitchServerStoppedAtEachStep stops the network server there, and lets it go on when
// the switch waits for it, or has ended: it needs it for marks only.
func TestSwitchServerStoppedAtEachStep(t *testing.T) {
	withFaults(t, func(x *faults) {
		var c carriedOut
		x.each(func(to protocol.Mode, place string) {
			x.from(to)
			server := x.rig.status().Server.PID
			x.stopAt(place)
			ordered := x.order(x.redis, to)
			x.steps.await()
			x.halt(server)
			x.release()
			if before(to, place, needed[to].until) {
				step := ""
				for _, w := range needed[to].waits {
					if !before(to, place, w[0]) {
						step = w[1]
					}
				}
				x.inStep("redis", to, step)
			} else {
				ordered = x.answered(ordered)
			}
			_ = syscall.Kill(server, syscall.SIGCONT) // unless it has been replaced
			o := x.await(ordered)
			c.ends(x, to, o)
		})
		c.mostGoOn(t)
	})
}

// answered waits for an order's result, which is returned once more.
func (x *faults) answered(done <-chan order) <-chan order {
	x.t.Helper()
	again := make(chan order, 1)
	again <- x.await(done)
	return again
}

// busy checks that other orders are refused by name while a switch is in a step.
func (x *faults) busy(to protocol.Mode, step string) {
	x.t.Helper()
	x.inStep("redis", to, step)
	for _, other := range []protocol.Mode{protocol.Direct, protocol.Server} {
		require.ErrorContains(x.t, x.await(x.order(x.redis, other)).err, fmt.Sprintf("a switch to %v is under way (%s)", to, step))
	}
	c := x.Server.Command(context.Background(), filepath.Join(commands, "junction_ctl"), "--json", "--socket", x.socket, "switch", "--all", "--mode", "direct")
	all := launch(x.t, c, c.Cmd)
	require.NotZero(x.t, all.exit())
	require.Contains(x.t, all.stderr.String()+all.stdout.String(), "is under way")
}

// TestSwitchPeersLate: an instance that answers none of a step's messages in time, nor
// that it is to go back: who has ordered is told, it is switched no more, and when it
// answers after all it is as was said. So it is with a network server that stands still.
func TestSwitchPeersLate(t *testing.T) {
	const short = 300 * time.Millisecond
	withFaults(t, func(x *faults) {
		for _, to := range []protocol.Mode{protocol.Direct, protocol.Server} {
			begins := map[protocol.Mode]string{protocol.Direct: "make", protocol.Server: "timer"}[to]
			for _, place := range []string{begins, "received prepared", "received aligned", "received moved"} {
				x.from(to)
				pid := x.instancePID("redis")
				x.stopAt(place)
				done := x.order(x.redis, to)
				x.steps.await()
				x.halt(pid)
				x.stepTime(short)
				x.release()
				o := x.await(done)
				require.NoError(t, o.err)
				stays := 1 - to
				if place == "received moved" {
					stays = to
				}
				require.Equal(t, stays, o.result.Mode, place)
				require.Contains(t, o.result.Reason, "does not confirm", place)
				require.ErrorContains(t, x.await(x.order(x.redis, 1-stays)).err, "does not answer")
				x.stepTime(time.Minute)
				require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
				x.settled("redis")
				x.ends(stays)
			}
		}
		for _, late := range []struct {
			to    protocol.Mode
			place string
		}{{protocol.Direct, "mark 1 by server"}, {protocol.Direct, "mark 2 by server"}, {protocol.Server, "mark 0 by server"}} {
			x.from(late.to)
			server := x.rig.status().Server.PID
			x.stopAt(late.place)
			done := x.order(x.redis, late.to)
			x.steps.await()
			x.halt(server)
			x.release()
			o := x.await(done)
			require.NoError(t, o.err)
			require.NotEmpty(t, o.result.Reason, late.place)
			require.Equal(t, 1-late.to, o.result.Mode)
			_ = syscall.Kill(server, syscall.SIGCONT) // unless it has been replaced
			x.ends(1 - late.to)
		}
	})
}
