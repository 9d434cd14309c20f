package plugin

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/coresched/policies/sol"
	"junction/ipc"
)

// A policy that is to outlive its actuator waits for another one, which reattaches:
// the same process goes on with all tasks.
func TestReattach(t *testing.T) {
	for _, name := range []string{"shinjuku", "fifo-percpu"} {
		p, page := newProcessPlant(t)
		process := startPolicy(t, name, page)
		require.NoError(t, process.Survive(time.Hour))
		d := p.attach(t, process)
		for i := range 3 {
			require.NoError(t, p.serve(t, d, func() bool { return p.done > 50*(i+1) }))
			p.fallBack(t, d) // as if its actuator had died
			next, err := Reattach(process.Handle(), page, os.Stderr)
			require.NoError(t, err)
			require.Equal(t, process.PID(), next.PID())
			require.Equal(t, process.Traits, next.Traits)
			d = p.attach(t, next)
			defer next.Kill()
		}
		require.NoError(t, p.serve(t, d, nil))
		require.Equal(t, 400, p.done)
		require.NoError(t, d.Close(p.now))
		process.Kill()
		require.True(t, process.Exited())
		_, err := Reattach(process.Handle(), page, nil)
		require.Error(t, err, "it has ended")
	}
}

// Only a policy that was told to outlive its actuator, and has lost it, reattaches.
func TestReattachRefused(t *testing.T) {
	p, page := newProcessPlant(t)
	process := startPolicy(t, "sol", page)
	var pid int
	require.ErrorContains(t, process.control.call("Renew", Renewal{PID: os.Getpid()}, &pid), "outlives")
	require.NoError(t, process.Survive(time.Hour))
	d := p.attach(t, process)
	require.ErrorContains(t, process.control.call("Renew", Renewal{PID: os.Getpid()}, &pid), "still there")
	require.NoError(t, d.Close(p.now))
	bad := Renewal{PID: os.Getpid(), Page: 1 << 20}
	require.ErrorContains(t, process.control.call("Renew", bad, &pid), "descriptor")
	process.Kill()
}

// halt stops a process, and waits until all its threads have stopped: one that has not
// could still answer.
func halt(t *testing.T, pid int) {
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	require.Eventually(t, func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		require.NoError(t, err)
		return len(stats) > 0 && !slices.ContainsFunc(stats, func(stat string) bool {
			b, err := os.ReadFile(stat)
			return err == nil && !bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" T"))
		})
	}, time.Minute, time.Millisecond)
}

// One that stands still when its successor comes does not keep that waiting: it is
// killed, and another one serves all tasks.
func TestReattachStopped(t *testing.T) {
	p, page := newProcessPlant(t)
	process := startPolicy(t, "sol", page)
	require.NoError(t, process.Survive(time.Hour))
	d := p.attach(t, process)
	require.NoError(t, p.serve(t, d, func() bool { return p.done > 50 }))
	p.fallBack(t, d)
	halt(t, process.PID())
	socket := process.Handle().Address
	_, err := reattach(process.Handle(), page, os.Stderr, 100*time.Millisecond)
	require.ErrorIs(t, err, errLate)
	require.NoFileExists(t, socket, "nothing is left of it")
	process.Kill()
	require.True(t, process.Exited())
	p.succeed(t, page, "fifo-central")
}

// Nor does one that stands still before it is told to outlive us.
func TestStoppedAtOnce(t *testing.T) {
	_, page := newProcessPlant(t)
	process := startPolicy(t, "sol", page)
	halt(t, process.PID())
	err := process.within(100*time.Millisecond, func() error { return process.control.call("Survive", time.Hour, new(struct{})) })
	require.ErrorIs(t, err, errLate)
	process.Kill()
}

// One that nobody reattaches ends by itself.
func TestOrphanEnds(t *testing.T) {
	p, page := newProcessPlant(t)
	process := startPolicy(t, "sol", page)
	require.NoError(t, process.Survive(time.Second))
	d := p.attach(t, process)
	require.NoError(t, d.Close(p.now))
	require.Eventually(t, process.Exited, time.Minute, 10*time.Millisecond)
	require.ErrorIs(t, unix.Kill(process.PID(), 0), unix.ESRCH)
	process.Kill()
}

// offer makes rings for a policy in this process, and a page. pair is to be closed
// once the policy has them.
func offer(t *testing.T) (pair *ipc.Pair, end *ipc.End, r Renewal) {
	page, err := NewPage()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	pair, err = ipc.NewPair(ipc.Options{})
	require.NoError(t, err)
	end, err = pair.Attach(ipc.ServerSide)
	require.NoError(t, err)
	return pair, end, Renewal{PID: os.Getpid(), Ring: pair.Files(ipc.InstanceSide), Page: page.FD()}
}

// A successor that comes before the policy has seen that its actuator is gone keeps
// the policy: it does not end for want of one. When the successor is gone too it will.
func TestSuccessorIsEarly(t *testing.T) {
	s := &controlServer{policy: sol.New(), orphaned: time.Hour}
	pair, first, r := offer(t)
	fds, err := fetchFiles(&r)
	require.NoError(t, err)
	require.NoError(t, s.begin([ipc.FilesPerEnd]int(fds), fds[ipc.FilesPerEnd]))
	require.NoError(t, pair.Close())
	before := s.ended
	pair, second, r := offer(t)
	renewed := make(chan error)
	go func() {
		var pid int
		renewed <- s.Renew(r, &pid)
	}()
	require.NoError(t, first.Close())
	require.NoError(t, <-renewed)
	require.NoError(t, pair.Close())
	s.abandoned(before) // perhaps a second time
	s.mu.Lock()
	after := s.ended
	require.NotEqual(t, before, after)
	require.Nil(t, s.end, "it serves the successor")
	s.mu.Unlock()
	require.NoError(t, second.Close())
	<-after
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.end != nil && s.end.Stop()
	}, time.Minute, time.Millisecond)
}
