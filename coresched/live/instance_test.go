package live

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/instance"
)

// fakeInstance is a process of some threads, for which the test speaks. It
// complies with grants unless it is greedy.
type fakeInstance struct {
	*instance.Taker
	pid    int
	tids   []int
	greedy atomic.Bool
	ended  chan struct{} // closed when it hears nothing any more
}

// startInstance starts the process of an instance. It has not joined.
func startInstance(t *testing.T) *fakeInstance {
	cmd, out := command(t, role("worker")...)
	f := &fakeInstance{pid: cmd.Process.Pid}
	for range workers {
		require.True(t, out.Scan())
	}
	f.tids = allThreads(f.pid, nil)
	require.Greater(t, len(f.tids), workers)
	return f
}

// join makes it a member of an enclave.
func (f *fakeInstance) join(t *testing.T, a *Actuator, enclave string, o InstanceOptions) error {
	g, files, err := instance.NewGiver(o.Kthreads)
	require.NoError(t, err)
	f.Taker, err = instance.NewTaker(files)
	require.NoError(t, err)
	o.PID = f.pid
	if err := a.Join(enclave, g, o); err != nil {
		require.NoError(t, g.Close())
		require.NoError(t, f.Close())
		return err
	}
	f.ended = make(chan struct{})
	go func() {
		defer close(f.ended)
		for f.Wait() == nil {
			if !f.greedy.Load() {
				f.Settle(f.Grant().Seq)
			}
		}
	}()
	return nil
}

// leave closes the doorbell.
func (f *fakeInstance) leave(t *testing.T) {
	f.Silence()
	<-f.ended
	require.NoError(t, f.Close())
}

// granted waits until it may have so many kthreads.
func (f *fakeInstance) granted(t *testing.T, n int) {
	t.Helper()
	eventually(t, "granted "+strconv.Itoa(n), func() bool { return f.Grant().Kthreads == n })
}

// scheduled waits until all its threads are in a class, on some cores.
func (f *fakeInstance) scheduled(t *testing.T, class uint32, cores cs.CPUSet) {
	t.Helper()
	eventually(t, "all threads in class "+strconv.Itoa(int(class)), func() bool {
		for _, tid := range allThreads(f.pid, nil) {
			if o, err := readOriginal(tid); err != nil || o.policy != class || o.cpus != cores {
				return false
			}
		}
		return true
	})
}

// bestEffort waits until it has what nobody else wants, or has as much as others.
func (f *fakeInstance) bestEffort(t *testing.T, a *Actuator, cores cs.CPUSet, is bool) {
	t.Helper()
	class := uint32(unix.SCHED_NORMAL)
	switch {
	case a.groups != nil:
		group := groupOf(t, f.pid)
		eventually(t, "its group is idle or not", func() bool { return a.groups.isIdle(group) == is })
	case is:
		class = unix.SCHED_IDLE
	}
	f.scheduled(t, class, cores)
}

// machineWith starts an actuator with an enclave "e" of all cores of this process
// and ias in charge.
func machineWith(t *testing.T) (a *Actuator, cores cs.CPUSet) {
	needHost(t)
	a, err := New(options())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	o, err := readOriginal(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, a.Create("e", o.cpus, 0))
	_, err = a.SetPolicy("e", "ias", nil)
	require.NoError(t, err)
	return a, o.cpus
}

// TestInstances: latency-critical and best-effort instances come, want, get and
// go.
func TestInstances(t *testing.T) {
	a, cores := machineWith(t)
	all := cores.Len()
	lc, be := startInstance(t), startInstance(t)
	require.NoError(t, be.join(t, a, "e", InstanceOptions{Name: "be", Kthreads: all, Class: cs.BestEffort}))
	require.NoError(t, lc.join(t, a, "e", InstanceOptions{Name: "lc", Kthreads: all, Guaranteed: 1}))
	require.ErrorIs(t, startInstance(t).join(t, a, "e", InstanceOptions{Name: "more", Kthreads: all, Guaranteed: all}), ErrRefused)
	be.bestEffort(t, a, cores, true)
	lc.scheduled(t, unix.SCHED_NORMAL, cores)
	require.ErrorIs(t, a.Push("e", lc.tids[:1]), ErrRefused)

	// Nobody wants anything: no core is anybody's.
	for _, s := range a.Instances() {
		require.Zero(t, s.Want, s.Name)
		require.Empty(t, s.Cores, s.Name)
	}
	be.Show(instance.Demand{Want: all}, true)
	be.granted(t, all)
	lc.granted(t, 1)

	// It wants all cores: one at once, others when it has waited for too long.
	lc.Show(instance.Demand{Want: all, Waiting: 1}, true)
	lc.granted(t, all)
	eventually(t, "all cores are lc's", func() bool { return a.Instances()[1].Cores == cores.String() })
	require.Empty(t, a.Instances()[0].Cores)
	require.Equal(t, all, be.Grant().Kthreads, "what lc leaves is lent")
	lc.scheduled(t, unix.SCHED_NORMAL, cores)

	lc.Show(instance.Demand{}, true)
	eventually(t, "best effort has them all again", func() bool { return a.Instances()[0].Cores == cores.String() })
	lc.granted(t, 1)
	require.Zero(t, a.Instances()[1].Want)

	// Who goes gets back what it had; who is killed leaves nothing behind.
	be.leave(t)
	be.scheduled(t, unix.SCHED_NORMAL, cores)
	eventually(t, "it has left", func() bool { return len(a.Instances()) == 1 })
	require.NoError(t, unix.Kill(lc.pid, unix.SIGKILL))
	lc.leave(t)
	eventually(t, "it has left", func() bool { return len(a.Instances()) == 0 })
}

// TestInstanceDoesNotYield: one that keeps threads executing that it was not
// granted is held to its cores by the kernel, until it complies.
func TestInstanceDoesNotYield(t *testing.T) {
	a, cores := machineWith(t)
	all := cores.Len()
	if all < 2 {
		t.Skip("needs two cores")
	}
	greedy, other := startInstance(t), startInstance(t)
	require.NoError(t, greedy.join(t, a, "e", InstanceOptions{Name: "greedy", Kthreads: all}))
	require.NoError(t, other.join(t, a, "e", InstanceOptions{Name: "other", Kthreads: 1, Guaranteed: 1}))
	greedy.Show(instance.Demand{Want: all, Waiting: 1}, true)
	greedy.granted(t, all)
	greedy.greedy.Store(true)

	other.Show(instance.Demand{Want: 1, Waiting: 1}, true)
	other.granted(t, 1)
	var has cs.CPUSet
	eventually(t, "it is held", func() bool {
		s := a.Instances()[0]
		var err error
		has, err = cs.ParseCPUSet(s.Cores)
		return s.Held && err == nil && has.Len() == all-1
	})
	greedy.scheduled(t, unix.SCHED_NORMAL, has)
	greedy.greedy.Store(false)
	greedy.Settle(greedy.Grant().Seq)
	greedy.scheduled(t, unix.SCHED_NORMAL, cores)
	require.False(t, a.Instances()[0].Held)
}

// TestInstanceIsDenied: a latency-critical one that gets no core is let run like
// one that does, but only for a moment; then what nobody else wants.
func TestInstanceIsDenied(t *testing.T) {
	a, cores := machineWith(t)
	all := cores.Len()
	first, second := startInstance(t), startInstance(t)
	require.NoError(t, first.join(t, a, "e", InstanceOptions{Name: "first", Kthreads: all, Guaranteed: all, Spinning: all}))
	first.granted(t, all) // it spins
	require.NoError(t, second.join(t, a, "e", InstanceOptions{Name: "second", Kthreads: all}))
	second.Show(instance.Demand{Want: 1, Waiting: 1}, true)
	second.scheduled(t, unix.SCHED_IDLE, cores)
	require.Equal(t, 1, second.Grant().Kthreads)
	first.leave(t)
	second.scheduled(t, unix.SCHED_NORMAL, cores)
	require.Positive(t, a.Instances()[0].Denials)
}

// TestGuaranteed: an instance may execute as many threads as it is guaranteed without
// asking, also while others have the cores.
func TestGuaranteed(t *testing.T) {
	a, cores := machineWith(t)
	all := cores.Len()
	be, lc := startInstance(t), startInstance(t)
	require.NoError(t, be.join(t, a, "e", InstanceOptions{Name: "be", Kthreads: all, Class: cs.BestEffort}))
	be.Show(instance.Demand{Want: all, Waiting: 1}, true)
	eventually(t, "best effort has all cores", func() bool { return a.Instances()[0].Cores == cores.String() })
	require.NoError(t, lc.join(t, a, "e", InstanceOptions{Name: "lc", Kthreads: all + 1, Guaranteed: all}))
	lc.granted(t, all)
	s := a.Instances()
	require.Zero(t, s[1].Want)
	require.Equal(t, cores.String(), s[0].Cores)
	lc.Show(instance.Demand{Want: 1}, true)
	eventually(t, "it has a core", func() bool { return a.Instances()[1].Cores != "" })
	require.Equal(t, all, lc.Grant().Kthreads)
	require.False(t, a.Instances()[1].Held)
	lc.scheduled(t, unix.SCHED_NORMAL, cores)
}

// TestPolicyGone: without a policy an instance has all its kthreads, and its
// threads are as they were.
func TestPolicyGone(t *testing.T) {
	a, cores := machineWith(t)
	be := startInstance(t)
	require.NoError(t, be.join(t, a, "e", InstanceOptions{Name: "be", Kthreads: cores.Len() + 1, Class: cs.BestEffort}))
	be.Show(instance.Demand{Want: 1}, true)
	be.granted(t, 1)
	be.bestEffort(t, a, cores, true)
	s, err := a.Enclave("e")
	require.NoError(t, err)
	require.NoError(t, unix.Kill(s.PID, unix.SIGKILL))
	be.granted(t, cores.Len()+1)
	be.bestEffort(t, a, cores, false)
	_, err = a.SetPolicy("e", "ias", nil)
	require.NoError(t, err)
	be.granted(t, 1)
	be.bestEffort(t, a, cores, true)
	require.NoError(t, a.Destroy("e"))
	be.scheduled(t, unix.SCHED_NORMAL, cores)
	<-be.ended // nobody grants anything any more
}

// TestIdleInstances: those that have nothing to do are not looked at, and hear
// nothing, while others get and lose cores.
func TestIdleInstances(t *testing.T) {
	a, cores := machineWith(t)
	idle, busy := startInstance(t), startInstance(t)
	require.NoError(t, idle.join(t, a, "e", InstanceOptions{Name: "idle", Kthreads: 1, Guaranteed: 1}))
	require.NoError(t, busy.join(t, a, "e", InstanceOptions{Name: "busy", Kthreads: cores.Len()}))
	idle.granted(t, 1)
	seq, beat := idle.Grant().Seq, idle.Beat()
	for range 20 {
		busy.Show(instance.Demand{Want: cores.Len(), Waiting: 1}, true)
		eventually(t, "cores", func() bool { return a.Instances()[0].Cores == cores.String() })
		busy.Show(instance.Demand{}, true)
		eventually(t, "no cores", func() bool { return a.Instances()[0].Cores == "" })
	}
	time.Sleep(2 * beatEvery) // a beat would have come
	require.Equal(t, seq, idle.Grant().Seq)
	require.Equal(t, beat, idle.Beat())
}

// TestGuardRestoresInstances: the guard gives all threads of a process back what
// they had, those made meanwhile too.
func TestGuardRestoresInstances(t *testing.T) {
	f := startInstance(t)
	s, err := readStat(f.pid)
	require.NoError(t, err)
	o, err := readOriginal(f.pid)
	require.NoError(t, err)
	require.NoError(t, eachThread(f.pid, s.started, func(tid int) error {
		return setAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE})
	}))
	f.scheduled(t, unix.SCHED_IDLE, o.cpus)
	g := listener{threads: map[int]taken{}}
	g.heed(&note{Take: f.pid, Process: true, Started: s.started, originalRecord: o.record()})
	require.NoError(t, g.restore("a test"))
	f.scheduled(t, o.policy, o.cpus)
}
