package live

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// What others do to a thread in an enclave is heeded: the policy hears of it, and
// the thread gets back what they wanted.
func TestOutside(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	mine, err := affinity(tids[0])
	require.NoError(t, err)
	core := oneCore(t)
	require.NoError(t, a.Create("e", core, 0))
	_, err = a.SetPolicy("e", "cfs", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids))
	eventually(t, "hand-offs", func() bool { return enclaveOf(t, a, "e").Handoffs > 10 })

	// renice is heeded and kept.
	require.NoError(t, unix.Setpriority(unix.PRIO_PROCESS, tids[0], 7))
	eventually(t, "the nice value is seen", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.threads[tids[0]].nice == 7
	})

	// A real-time class is none of ours: the thread leaves, and keeps it.
	fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: 3}
	require.NoError(t, setAttr(tids[1], &fifo))
	rr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedRR, Priority: 1}
	require.NoError(t, setAttr(tids[2], &rr))
	eventually(t, "it is let go", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.threads[tids[2]] == nil
	})
	attr, err := unix.SchedGetAttr(tids[2], 0)
	require.NoError(t, err)
	require.EqualValues(t, schedRR, attr.Policy)
	cores, err := affinity(tids[2])
	require.NoError(t, err)
	require.Equal(t, mine, cores)

	// taskset to cores of which the enclave has none: the thread leaves too.
	if others := mine; others.Len() > 1 {
		others.Remove(core.Next(0))
		eventually(t, "it is let go", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.threads[tids[3]] == nil {
				return true
			}
			set := toLinux(&others) // once may fall between two of ours
			require.NoError(t, unix.SchedSetaffinity(tids[3], &set))
			return false
		})
		eventually(t, "it is where it was put", func() bool {
			o, err := readOriginal(tids[3])
			return err == nil && o.cpus == others && o.policy == unix.SCHED_NORMAL
		})
	}
	require.NoError(t, a.Destroy("e"))
	o, err := readOriginal(tids[0])
	require.NoError(t, err)
	require.Equal(t, original{policy: unix.SCHED_NORMAL, nice: 7, cpus: mine}, o)
	require.NotEqual(t, cs.CPUSet{}, mine)
}

const schedRR = 2 // SCHED_RR of sched(7)
