package live

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// onlineSays starts an actuator that is told in a file which cores are online, and
// writes it.
func onlineSays(t *testing.T, cpus string) (a *Actuator, say func(cpus string)) {
	needHost(t)
	o := options()
	o.Online = filepath.Join(t.TempDir(), "online")
	say = func(cpus string) { require.NoError(t, os.WriteFile(o.Online, []byte(cpus+"\n"), 0o644)) }
	say(cpus)
	a, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a, say
}

// A core that goes offline is no policy's any more, and its thread is put elsewhere;
// when it comes back it is used again.
func TestCoreGoesOffline(t *testing.T) {
	mine, err := affinity(os.Getpid())
	require.NoError(t, err)
	first := oneCore(t)
	all := mine.String()
	a, say := onlineSays(t, all)
	require.NoError(t, a.Create("e", first, 0))
	_, err = a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	tids := startWorkers(t)
	was := originals(t, tids)
	require.NoError(t, a.Push("e", tids))
	running := func() (n int) {
		for _, s := range a.Threads() {
			if s.CPU >= 0 {
				n++
			}
		}
		return n
	}
	eventually(t, "one runs", func() bool { return running() > 0 })

	mine.Remove(first.Next(0))
	mine.Add(cs.MaxCPUs - 1) // one at least
	say(mine.String())
	eventually(t, "it is noticed", func() bool { return enclaveOf(t, a, "e").CPUsOffline != "" })
	require.Zero(t, running(), "none runs there")
	s := enclaveOf(t, a, "e")
	require.Equal(t, first.String(), s.CPUsOffline)
	require.True(t, s.AgentOnline, "that is not the policy's fault")
	for _, tid := range tids {
		eventually(t, "it is idle class", func() bool {
			o, err := readOriginal(tid)
			return err == nil && o.policy == unix.SCHED_IDLE && o.cpus == first
		})
	}
	require.ErrorIs(t, a.Create("f", first, 0), cs.ErrCPU)

	say("")
	say("nonsense")
	require.Equal(t, first.String(), enclaveOf(t, a, "e").CPUsOffline, "what cannot be read changes nothing")
	say(all)
	eventually(t, "one runs again", func() bool { return running() > 0 })
	require.Empty(t, enclaveOf(t, a, "e").CPUsOffline)
	require.NoError(t, a.Destroy("e"))
	asBefore(t, tids, was)
}
