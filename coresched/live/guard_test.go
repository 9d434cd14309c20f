package live

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A guard that stands still keeps nobody up: it is killed when its pipe is full,
// threads are released, and another one takes its place.
func TestGuardStops(t *testing.T) {
	needHost(t)
	a, err := New(options())
	require.NoError(t, err)
	tids := startWorkers(t)
	before := originals(t, tids)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err = a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids))
	g, _ := a.now()
	require.NoError(t, unix.Kill(g.cmd.Process.Pid, unix.SIGSTOP))
	said := make(chan error, 1)
	go func() {
		for {
			if err := g.tell(&note{}); err != nil {
				said <- err
				return
			}
		}
	}()
	select {
	case err := <-said:
		require.Error(t, err)
	case <-time.After(time.Minute):
		require.Fail(t, "whoever tells it waits")
	}
	eventually(t, "the policy is taken away", func() bool { return !enclaveOf(t, a, "e").AgentOnline })
	asBefore(t, tids, before)
	_, err = a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	from := enclaveOf(t, a, "e").Handoffs
	eventually(t, "threads run under another guard", func() bool { return enclaveOf(t, a, "e").Handoffs > from+10 })
	require.NoError(t, a.Close())
	asBefore(t, tids, before)
}

// An instance that comes when the guard has ended gets another one.
func TestJoinWithoutGuard(t *testing.T) {
	a, _ := machineWith(t)
	g, _ := a.now()
	require.NoError(t, unix.Kill(g.cmd.Process.Pid, unix.SIGKILL))
	<-g.ended
	require.NoError(t, startInstance(t).join(t, a, "e", InstanceOptions{Name: "i", Kthreads: 1}))
	now, _ := a.now()
	require.False(t, now.gone())
}
