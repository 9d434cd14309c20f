package plugin

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
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
