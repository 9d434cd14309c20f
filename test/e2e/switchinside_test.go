package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/switch/protocol"
)

// inside is a place between a process's own steps: when it comes to a function for the
// nth time in a switch.
type inside struct {
	name     string
	function string
	nth      uint64
}

const (
	mover    = "junction/internal/monitor/mover.(*Mover)."
	endpoint = "junction/switch.(*Endpoint)."

	merged = "the merging ends" // of Finish, the last message
)

// insides are an instance's, by where a switch goes to.
var insides = map[protocol.Mode][]inside{
	protocol.Direct: {
		{"prepare is read", mover + "receive", 1},
		{"the queue's files are taken", mover + "adopt", 1},
		{"the queue is mapped", endpoint + "Add", 1},
		{"both paths are received", mover + "merge", 1},
		{"prepared is sent", mover + "send", 1},
		{"align is read", mover + "receive", 2},
		{"aligned is sent", mover + "send", 2},
		{"packets turn", endpoint + "Move", 1},
		{"moved is sent", mover + "send", 3},
		{merged, endpoint + "EndMerge", 1},
		{"finished is sent", mover + "send", 4},
	},
	protocol.Server: {
		{"prepare is read", mover + "receive", 1},
		{"both paths are received", mover + "merge", 1},
		{"prepared is sent", mover + "send", 1},
		{"aligned is sent", mover + "send", 2},
		{"packets turn", endpoint + "Move", 1},
		{"moved is sent", mover + "send", 3},
		{merged, endpoint + "EndMerge", 1},
		{"the queue is given up", mover + "closeDevice", 1},
		{"finished is sent", mover + "send", 4},
	},
}

// eachOf runs f for each place.
func (x *faults) eachOf(places map[protocol.Mode][]inside, f func(to protocol.Mode, place inside)) {
	for _, to := range []protocol.Mode{protocol.Direct, protocol.Server} {
		for _, place := range places[to] {
			x.sub(fmt.Sprintf("to %v/before %s", to, place.name), func() { f(to, place) })
		}
	}
}

// TestSwitchInstanceKilledInside kills an instance between its own steps: nothing of it is
// left, and one beside it, in the other mode, notices nothing.
func TestSwitchInstanceKilledInside(t *testing.T) {
	needUprobes(t)
	withFaults(t, func(x *faults) {
		x.switchTo(protocol.Direct)
		x.switchTo(protocol.Server)
		kept := x.kept()
		x.eachOf(insides, func(to protocol.Mode, place inside) {
			x.from(to)
			i, held := x.startVictim(to)
			dies := setTrap(x.t, junctionRun, i.cmd.Process.Pid, place.function, place.nth, syscall.SIGKILL)
			o := x.await(x.order(x.idOf("victim"), to))
			require.Equal(x.t, 128+9, i.exit())
			require.True(x.t, dies.sprung())
			require.True(x.t, o.err != nil || o.result.Reason == "the instance ended", "%+v", o)
			x.victimGone(held)
			x.goesOn()
			x.queues(map[protocol.Mode]int{protocol.Server: 1}[to])
		})
		x.from(protocol.Direct)
		x.keepsNoMore(kept)
	})
}

// TestSwitchStoppedInside stops an instance between its own steps and kills the monitor,
// or the network server, before it goes on: it is in one mode, which is the one that is
// told, and serves.
func TestSwitchStoppedInside(t *testing.T) {
	needUprobes(t)
	withFaults(t, func(x *faults) {
		pid, n := x.instancePID("redis"), 0
		x.eachOf(insides, func(to protocol.Mode, place inside) {
			x.from(to)
			stops := setTrap(x.t, junctionRun, pid, place.function, place.nth, syscall.SIGSTOP)
			done := x.order(x.redis, to)
			stops.await()
			x.halted(pid)
			stops.remove()
			if n++; n%2 == 0 {
				x.serverKilledNow(pid, done)
			} else {
				x.monitorKilledNow(pid, done, to, place)
			}
		})
	})
}

// monitorKilledNow kills the monitor while the instance is stopped. What that has read it
// does, and it is in the new mode if that was the last step.
func (x *faults) monitorKilledNow(pid int, done <-chan order, to protocol.Mode, place inside) {
	x.t.Helper()
	require.NoError(x.t, x.monitor.cmd.Process.Kill())
	x.monitorEnded()
	require.Error(x.t, x.await(done).err)
	require.NoError(x.t, syscall.Kill(pid, syscall.SIGCONT))
	x.steps = x.startSteps()
	x.settled("redis")
	last := slices.IndexFunc(insides[to], func(i inside) bool { return i.name == merged })
	mode := protocol.Server
	if slices.Index(insides[to], place) >= last {
		mode = to
	}
	x.ends(mode)
}

// serverKilledNow kills the network server while the instance is stopped.
func (x *faults) serverKilledNow(pid int, done <-chan order) {
	x.t.Helper()
	server := x.rig.status().Server.PID
	x.end(server)
	require.NoError(x.t, syscall.Kill(pid, syscall.SIGCONT))
	o := x.await(done)
	require.NoError(x.t, o.err)
	require.Equal(x.t, o.result.Mode == o.result.To, o.result.Reason == "")
	x.awaitServer(server)
	x.ends(o.result.Mode)
}

// monitorEnded waits until it has, but not for its output's end: the network server has
// that, too.
func (x *faults) monitorEnded() {
	x.t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(x.monitor.cmd.Process.Pid))
	require.Eventually(x.t, func() bool { return startTime(dir) == "" }, readyTimeout, time.Millisecond)
}

const steer = "junction/direct/steer."

// makings are the places at which a queue is half made, and at which it is half gone.
var makings = map[protocol.Mode][]inside{
	protocol.Direct: {
		{"the devices are made", steer + "newPair", 1},
		{"the egress program is attached", "junction/direct/internal/outlet.Guard", 1},
		{"the XDP program is attached", steer + "(*pair).attach", 1},
		{"the socket is made", "junction/direct/afxdp.NewSocket", 1},
		{"the device is entered", steer + "(*VF).clearCounts", 1},
		{"the devices are up", steer + "(*pair).up", 1},
		{"the outlet is made", steer + "(*VF).makeOutlet", 1},
		{"the outlet is to stay", "junction/direct/internal/outlet.(*Outlet).Persist", 1},
		{"the outlet is entered", steer + "(*VF).enterOutlet", 1},
		{"the owner is entered", steer + "(*VF).writeScope", 1},
		{"it is passed", steer + "(*VF).Export", 1},
	},
	protocol.Server: {
		{"it ends", steer + "(*VF).close", 1},
		{"its devices are deleted", "junction/direct/internal/outlet.Delete", 1},
		{"its outlet is deleted", "junction/direct/internal/outlet.Delete", 2},
		{"its socket is closed", "junction/direct/afxdp.(*Socket).Close", 1},
	},
}

// TestSwitchMonitorKilledMaking kills the monitor while it makes a queue, or ends one: the
// next one leaves nothing of it, and makes another in its place.
func TestSwitchMonitorKilledMaking(t *testing.T) {
	needUprobes(t)
	self, err := os.Executable()
	require.NoError(t, err)
	withFaults(t, func(x *faults) {
		x.switchTo(protocol.Direct)
		x.switchTo(protocol.Server)
		kept := x.kept()
		x.eachOf(makings, func(to protocol.Mode, place inside) {
			x.from(to)
			dies := setTrap(x.t, self, x.monitor.cmd.Process.Pid, place.function, place.nth, syscall.SIGKILL)
			require.Error(x.t, x.await(x.order(x.redis, to)).err)
			x.monitorEnded()
			require.True(x.t, dies.sprung())
			dies.remove()
			x.goesOn()
			x.steps = x.startSteps()
			x.settled("redis")
			x.ends(protocol.Server)
		})
		x.from(protocol.Direct)
		x.keepsNoMore(kept)
	})
}
