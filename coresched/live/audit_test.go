package live

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/instance"
)

// pretence is how many cores processes are said to use.
type pretence struct {
	mu    sync.Mutex
	cores map[int]int
	used  map[int]time.Duration
	at    map[int]time.Time
}

func pretend(a *Actuator) *pretence {
	p := &pretence{cores: map[int]int{}, used: map[int]time.Duration{}, at: map[int]time.Time{}}
	a.cpuClock = p.clock // nobody has joined
	return p
}

func (p *pretence) clock(pid int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(pid)
	return p.used[pid] + 1
}

func (p *pretence) settle(pid int) {
	now := time.Now()
	if at, ok := p.at[pid]; ok {
		p.used[pid] += now.Sub(at) * time.Duration(p.cores[pid])
	}
	p.at[pid] = now
}

func (p *pretence) uses(pid, cores int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle(pid)
	p.cores[pid] = cores
}

// statusOf returns how one instance stands.
func statusOf(t *testing.T, a *Actuator, name string) InstanceStatus {
	for _, s := range a.Instances() {
		if s.Name == name {
			return s
		}
	}
	t.Fatal("no instance", name)
	return InstanceStatus{}
}

// TestLiars: an instance that wants nothing, or complies with all, but uses the cores is
// held to what it has, or is guaranteed, and let go when it has stopped. Its neighbour,
// which uses what it has, is not.
func TestLiars(t *testing.T) {
	a, cores := machineWith(t)
	all := cores.Len()
	used := pretend(a)
	liar, promised, honest := startInstance(t), startInstance(t), startInstance(t)
	require.NoError(t, liar.join(t, a, "e", InstanceOptions{Name: "liar", Kthreads: all}))
	require.NoError(t, promised.join(t, a, "e", InstanceOptions{Name: "promised", Kthreads: all, Guaranteed: 1}))
	require.NoError(t, honest.join(t, a, "e", InstanceOptions{Name: "honest", Kthreads: all}))
	honest.Show(instance.Demand{Want: 1}, true)
	used.uses(honest.pid, 1)
	used.uses(liar.pid, 8)
	used.uses(promised.pid, 8)

	liar.scheduled(t, unix.SCHED_IDLE, cores)
	eventually(t, "it is shown", func() bool {
		s := statusOf(t, a, "liar")
		return s.Held && strings.HasPrefix(s.HeldWhy, "it used 8") && s.Excesses > 0
	})
	var first cs.CPUSet
	first.Add(cores.Next(0))
	promised.scheduled(t, unix.SCHED_NORMAL, first) // never to less than it is guaranteed

	// One that has got a core is bound to it.
	used.uses(honest.pid, 0)
	honest.Show(instance.Demand{}, true)
	liar.Show(instance.Demand{Want: 1}, true)
	eventually(t, "it is bound to its core", func() bool {
		s := statusOf(t, a, "liar")
		has, err := cs.ParseCPUSet(s.Cores)
		o, err2 := readOriginal(liar.tids[0])
		return err == nil && err2 == nil && s.Held && has.Len() == 1 && o.cpus == has && o.policy == unix.SCHED_NORMAL
	})
	liar.Show(instance.Demand{}, true)

	used.uses(liar.pid, 0)
	used.uses(promised.pid, 0)
	liar.scheduled(t, unix.SCHED_NORMAL, cores)
	promised.scheduled(t, unix.SCHED_NORMAL, cores)
	eventually(t, "nobody is held", func() bool { return !statusOf(t, a, "liar").Held && !statusOf(t, a, "promised").Held })
	s := statusOf(t, a, "honest")
	require.Zero(t, s.Excesses)

	// One that leaves while it is held gets back what it had.
	used.uses(liar.pid, 8)
	liar.scheduled(t, unix.SCHED_IDLE, cores)
	liar.leave(t)
	liar.scheduled(t, unix.SCHED_NORMAL, cores)
}

// TestMeter: what a process has used and what its children have is added up, and one
// that has ended is told.
func TestMeter(t *testing.T) {
	shell, out := command(t, "/bin/sh", "-c", "while :; do :; done & echo $!; wait")
	require.True(t, out.Scan())
	child, err := strconv.Atoi(out.Text())
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Kill(child, unix.SIGKILL)) }()
	m := meter{clock: cpuTime}
	_, ok := m.read(shell.Process.Pid)
	require.False(t, ok, "nothing to compare with")
	total := time.Duration(0)
	eventually(t, "the child computes", func() bool {
		used, ok := m.read(shell.Process.Pid)
		total += used
		return ok && total > 20*time.Millisecond
	})
	require.GreaterOrEqual(t, cpuTime(child)+time.Second, total, "it is counted once")
	require.NoError(t, shell.Process.Kill())
	_ = shell.Wait()
	_, ok = m.read(shell.Process.Pid)
	require.False(t, ok)
}
