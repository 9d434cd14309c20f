package e2e

import (
	"net/netip"
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

// TestSwitchServerKilledAtEachStep kills the network server there. Where marks of its are
// to come, the switch is rolled back; elsewhere the monitor may notice too late for that.
func TestSwitchServerKilledAtEachStep(t *testing.T) {
	withFaults(t, func(x *faults) {
		x.switchTo(protocol.Direct)
		x.switchTo(protocol.Server)
		kept := x.kept()
		x.each(func(to protocol.Mode, place string) {
			x.from(to)
			server := x.rig.status().Server.PID
			x.stopAt(place)
			done := x.order(x.redis, to)
			x.steps.await()
			x.end(server)
			x.release()
			o := x.await(done)
			x.awaitServer(server)
			require.NoError(x.t, o.err)
			switch {
			case !before(to, place, "received moved"):
				require.Equal(x.t, to, o.result.Mode)
			case to == protocol.Server && before(to, place, "received prepared"), to == protocol.Direct && !before(to, place, "send align"):
				require.Equal(x.t, 1-to, o.result.Mode)
				require.Contains(x.t, o.result.Reason, "network server")
			}
			require.Equal(x.t, o.result.Mode == to, o.result.Reason == "")
			x.ends(o.result.Mode)
		})
		x.from(protocol.Direct)
		x.keepsNoMore(kept)
	})
}

// end kills a process and waits until it has ended.
func (x *faults) end(pid int) {
	x.t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	start := startTime(dir)
	require.NotEmpty(x.t, start)
	require.NoError(x.t, syscall.Kill(pid, syscall.SIGKILL))
	require.Eventually(x.t, func() bool { return startTime(dir) != start }, readyTimeout, time.Millisecond)
}

// TestSwitchMonitorKilledAtEachStep kills the monitor there. Packets flow; the next one
// goes to server mode from where the instance knows of the switch until it is done.
func TestSwitchMonitorKilledAtEachStep(t *testing.T) {
	withFaults(t, func(x *faults) {
		pid := x.instancePID("redis")
		x.each(func(to protocol.Mode, place string) {
			x.from(to)
			x.stopAt(place)
			done := x.order(x.redis, to)
			x.steps.await()
			if strings.HasPrefix(place, "send") {
				place = x.unread("redis", to, place, pid)
			}
			x.monitor.kill()
			require.Error(x.t, x.await(done).err)
			require.NoError(x.t, syscall.Kill(pid, syscall.SIGCONT))
			x.goesOn()
			x.steps = x.startSteps()
			var mode protocol.Mode
			switch {
			case !before(to, "send prepare", place):
				mode = 1 - to
			case before(to, "send finish", place):
				mode = to
			default:
				mode = protocol.Server
			}
			x.settled("redis")
			x.ends(mode)
		})
	})
}

// unread stops an instance at a place where it is sent something, and the monitor at the
// next one, which it returns: it is sent, and has not been read.
func (x *faults) unread(name string, to protocol.Mode, place string, pid int) (next string) {
	x.t.Helper()
	x.halt(pid)
	next = places[to][slices.Index(places[to], place)+1]
	if place == "send finish" { // nothing else follows, until it is read
		x.release()
		x.inStep(name, to, "finish")
		return next
	}
	x.stopAt(next)
	x.release()
	x.steps.await()
	return next
}

// TestSwitchInstanceKilledAtEachStep kills the instance there: nothing of it is left,
// and one beside it, in the other mode, notices nothing. In half of the cases it has
// been stopped before it could read what it was sent.
func TestSwitchInstanceKilledAtEachStep(t *testing.T) {
	withFaults(t, func(x *faults) {
		x.switchTo(protocol.Direct)
		x.switchTo(protocol.Server)
		kept := x.kept()
		x.each(func(to protocol.Mode, place string) {
			x.from(to)
			i, held := x.startVictim(to)
			x.stopAt(place)
			done := x.order(x.idOf("victim"), to)
			x.steps.await()
			if strings.HasPrefix(place, "send") {
				x.unread("victim", to, place, i.cmd.Process.Pid)
			}
			i.kill()
			x.release()
			o := x.await(done)
			require.True(x.t, o.err != nil || o.result.Reason == "the instance ended" || !before(to, place, "received finished"), "%+v", o)
			x.victimGone(held)
			x.ends(1 - to)
		})
		x.from(protocol.Direct)
		x.keepsNoMore(kept)
	})
}

// startVictim starts an instance that is in the mode from which a switch goes.
func (x *faults) startVictim(to protocol.Mode) (*instance, holding) {
	x.t.Helper()
	i := x.startNamed("victim", guest, "tcpecho", ":7")
	i.await("ready")
	if to == protocol.Server {
		x.rig.switchTo("victim", "direct")
	}
	require.NoError(x.t, x.dialEcho(netip.AddrPortFrom(addr4, 7), "hello"))
	held := heldBy(x.t, i.cmd.Process.Pid)
	require.NotEmpty(x.t, held.memfds)
	return i, held
}

// victimGone waits until nothing of it is left.
func (x *faults) victimGone(held holding) {
	x.t.Helper()
	held.requireGone(x.t)
	require.Eventually(x.t, func() bool { mode, _ := x.modeOf("victim"); return mode == "" }, readyTimeout, time.Millisecond)
	require.NotContains(x.t, x.portOwners(), "tcp/198.18.0.2:7")
}
