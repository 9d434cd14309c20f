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
	require.Equal(t, original{policy: unix.SCHED_NORMAL, nice: 7, cpus: mine, whole: o.whole}, o)
	require.NotEqual(t, cs.CPUSet{}, mine)
}

const schedRR = 2 // SCHED_RR of sched(7)

// What others do to a thread makes a transaction that was decided before fail, and
// the policy is told why. Here the test is the policy.
func TestOutsideTransactions(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	core := oneCore(t)
	require.NoError(t, a.Create("e", core, 0))
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.enclaves["e"].e
	require.NoError(t, e.Attach(clock(), false))
	defer func() { e.Detach(clock()); a.carryOut() }()
	for _, tid := range tids {
		require.NoError(t, a.push(a.enclaves["e"], tid))
		a.watch.drop(tid) // this test says what it does
		a.wakes(a.threads[tid], true)
	}
	a.carryOut()
	last := func(task cs.Task) (typ cs.MessageType) {
		buf := make([]cs.Message, 64)
		for e.Waiting(cs.NoCPU) {
			n, err := e.Receive(cs.NoCPU, buf)
			require.NoError(t, err)
			for _, m := range buf[:n] {
				if m.Task == task {
					typ = m.Type
				}
			}
		}
		return typ
	}
	e.Rescan(clock(), nil)
	for i, c := range []struct {
		what   string
		change func(tid int) error
		told   cs.MessageType
		result cs.Result
	}{
		{"renice", func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, 5) }, cs.TaskPriorityChanged, cs.TargetStale},
		{"chrt --batch", func(tid int) error {
			return setAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH})
		}, cs.TaskPriorityChanged, cs.TargetStale},
		{"chrt --rr", func(tid int) error {
			return setAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedRR, Priority: 1})
		}, cs.TaskDeparted, cs.TargetNotFound},
		{"taskset", func(tid int) error {
			var set unix.CPUSet
			set.Set(int(core.Next(0)))
			for c := range machineCPUs() {
				set.Set(c)
			}
			return unix.SchedSetaffinity(tid, &set)
		}, cs.TaskAffinityChanged, cs.TargetStale},
	} {
		if c.what == "taskset" && machineCPUs() == 1 {
			t.Log("taskset: not on a machine of one core")
			continue
		}
		m := a.threads[tids[i]]
		x := []cs.Txn{{CPU: core.Next(0), Task: m.task, TaskSeq: e.Status(clock(), m.task).Seq}}
		require.NoError(t, c.change(m.tid), c.what)
		a.compare()
		e.Commit(clock(), cs.NoCPU, x)
		require.Equal(t, c.result, x[0].Result, c.what)
		require.Equal(t, c.told, last(m.task), c.what)
	}
}
