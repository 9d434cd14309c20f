package policies_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	cs "junction/coresched"
	"junction/coresched/policies"
	"junction/coresched/policies/ias"
)

const benchCPUs = 3

// bench drives one policy in process, as the simulator does, on cores that are
// free of charge.
type bench struct {
	t       require.TestingT
	machine *cs.Machine
	enclave *cs.Enclave
	policy  cs.Policy
	agent   *cs.Agent
	agents  []cs.CPU
	tasks   []cs.Task
	allowed map[cs.Task]cs.CPUSet
	now     cs.Time
	batch   cs.Batch
	buf     []cs.Message
}

func newBench(t require.TestingT, name string, params policies.Params, queue int) *bench {
	p, err := policies.New(name, params)
	require.NoError(t, err)
	m, err := cs.NewMachine(benchCPUs)
	require.NoError(t, err)
	e, err := m.NewEnclave(cs.FirstCPUs(benchCPUs), cs.EnclaveOptions{QueueLen: queue})
	require.NoError(t, err)
	b := &bench{
		t: t, machine: m, enclave: e, policy: p, agent: cs.NewAgent(p), agents: []cs.CPU{cs.NoCPU}, allowed: map[cs.Task]cs.CPUSet{},
		now: cs.Time(time.Second), buf: make([]cs.Message, 64),
	}
	if p.Traits().PerCPU {
		b.agents = []cs.CPU{0, 1, 2}
	}
	require.NoError(t, e.Attach(b.now, p.Traits().PerCPU))
	return b
}

func (b *bench) enter(canRun bool, h cs.Hints, allowed cs.CPUSet) cs.Task {
	task, err := b.enclave.Enter(b.now, canRun, h)
	require.NoError(b.t, err)
	b.tasks, b.allowed[task] = append(b.tasks, task), allowed
	if allowed != cs.FirstCPUs(benchCPUs) {
		require.NoError(b.t, b.enclave.SetAffinity(b.now, task, allowed))
	}
	return task
}

// read gives the policy all messages.
func (b *bench) read() {
	for _, c := range b.agents {
		for b.enclave.Waiting(c) {
			n, err := b.enclave.Receive(c, b.buf)
			if err != nil {
				b.agent.Rescan(b.now, b.enclave)
				continue
			}
			for i := range b.buf[:n] {
				b.agent.Deliver(&b.buf[i])
			}
		}
	}
}

// settle has the policy decide until it has nothing more to do now. It returns
// when it wants to be called again.
func (b *bench) settle() (at cs.Time, set bool) {
	for rounds := 0; ; rounds++ {
		require.Less(b.t, rounds, 1000, "it decides without end")
		done := true
		set = false
		for _, c := range b.agents {
			b.read()
			b.agent.Decide(c, b.now, &b.batch)
			if len(b.batch.Txns()) > 0 {
				b.agent.Commit(b.enclave, b.now, c, &b.batch)
				b.agent.Settle(b.now, &b.batch)
				done = false
			}
			if again, ok := b.batch.Timer(); ok && (!set || again < at) {
				at, set = again, true
			}
		}
		b.machine.Actions()
		if done {
			return at, set
		}
	}
}

func (b *bench) waits(task cs.Task) bool {
	s := b.enclave.Status(b.now, task)
	return s.Runnable && !s.OnCPU
}

func drawSet(t *rapid.T) cs.CPUSet {
	var s cs.CPUSet
	bits := rapid.IntRange(1, 1<<benchCPUs-1).Draw(t, "allowed")
	for c := range cs.CPU(benchCPUs) {
		if bits>>c&1 != 0 {
			s.Add(c)
		}
	}
	return s
}

// No task waits while a core that it may run on has nobody, wherever others may
// run. Where a core has an agent of its own that holds for tasks that are at home there.
func TestNobodyWaitsForAnIdleCore(t *testing.T) {
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				b := newBench(t, name, nil, rapid.SampledFrom([]int{4, 256}).Draw(t, "queue"))
				for range rapid.IntRange(1, 40).Draw(t, "steps") {
					b.now += cs.Time(rapid.IntRange(0, 50).Draw(t, "pause")) * cs.Time(time.Microsecond)
					b.change(t)
					b.settle()
					if name == "ias" { // who has a core waits for another until it is congested
						b.now += cs.Time(10 * time.Microsecond)
						b.settle()
					}
					if len(b.agents) == 1 {
						b.nobodyWaits(t)
					}
				}
			})
		})
	}
}

// change has something happen to a task.
func (b *bench) change(t *rapid.T) {
	if len(b.tasks) == 0 || rapid.IntRange(0, 3).Draw(t, "new") == 0 {
		h := cs.Hints{
			Class: cs.Class(rapid.IntRange(0, 1).Draw(t, "class")), Group: uint32(rapid.IntRange(1, 3).Draw(t, "group")),
			Deadline: cs.Time(rapid.IntRange(0, 9).Draw(t, "deadline")) * cs.Time(time.Second),
		}
		b.enter(rapid.Bool().Draw(t, "runnable"), h, drawSet(t))
		return
	}
	task := rapid.SampledFrom(b.tasks).Draw(t, "task")
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		_ = b.enclave.Wakeup(b.now, task) // if it is blocked
	case 1:
		_ = b.enclave.Block(b.now, task) // if it is not
	case 2:
		_ = b.enclave.Yield(b.now, task) // if it runs
	case 3:
		b.allowed[task] = drawSet(t)
		require.NoError(t, b.enclave.SetAffinity(b.now, task, b.allowed[task]))
	}
}

func (b *bench) nobodyWaits(t *rapid.T) {
	for _, task := range b.tasks {
		allowed := b.allowed[task]
		for c := allowed.Next(0); c != cs.NoCPU && b.waits(task); c = allowed.Next(c + 1) {
			require.NotEqual(t, cs.NoTask, b.machine.Running(c), "task %d waits, and core %d is idle", task, c)
		}
	}
}

// Under policies with time slices everybody has a turn, wherever it and others may
// run, also after messages were lost.
func TestEverybodyHasATurn(t *testing.T) {
	for name, params := range map[string]policies.Params{
		"fifo-central": {"slice": time.Millisecond}, "shinjuku": nil, "cfs": nil, "ias": nil,
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				b := newBench(t, name, params, 256)
				groups := rapid.IntRange(1, 9).Draw(t, "groups")
				for i := range rapid.IntRange(4, 9).Draw(t, "tasks") {
					b.enter(true, cs.Hints{Class: cs.BestEffort, Group: uint32(i % groups)}, drawSet(t))
				}
				b.run(t, rapid.IntRange(0, 20).Draw(t, "before"))
				b.agent.Rescan(b.now, b.enclave)
				before := map[cs.Task]cs.Time{}
				for _, task := range b.tasks {
					before[task] = b.enclave.Status(b.now, task).Runtime
				}
				b.run(t, 300)
				for _, task := range b.tasks {
					require.Greater(t, b.enclave.Status(b.now, task).Runtime, before[task], "task %d of %d", task, len(b.tasks))
				}
			})
		})
	}
}

// run lets time pass as far as the policy's timers say.
func (b *bench) run(t *rapid.T, turns int) {
	for range turns {
		at, set := b.settle()
		waiting := false
		for _, task := range b.tasks {
			waiting = waiting || b.waits(task)
		}
		require.True(t, set || !waiting, "nobody looks again, and tasks wait")
		b.now = max(b.now+1, at)
	}
}

// Under edf nobody waits for a core on which one with a later deadline runs.
func TestEarliestDeadlineFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, deadlines := newBench(t, "edf", nil, 256), map[cs.Task]int{}
		for range rapid.IntRange(1, 9).Draw(t, "tasks") {
			d := rapid.IntRange(1, 20).Draw(t, "deadline")
			deadlines[b.enter(true, cs.Hints{Deadline: cs.Time(d)}, drawSet(t))] = d
			b.settle()
		}
		for _, task := range b.tasks {
			allowed := b.allowed[task]
			for c := allowed.Next(0); c != cs.NoCPU && b.waits(task); c = allowed.Next(c + 1) {
				require.GreaterOrEqual(t, deadlines[task], deadlines[b.machine.Running(c)], "task %d waits for core %d", task, c)
			}
		}
	})
}

// Who is pinned to one core, and furthest behind, does not keep others from their
// turns on another.
func TestCFSPinned(t *testing.T) {
	b := newBench(t, "cfs", nil, 256)
	var first, rest cs.CPUSet
	first.Add(0)
	rest.Add(1)
	for range 12 {
		b.enter(true, cs.Hints{}, first)
	}
	for range 3 {
		b.enter(true, cs.Hints{}, rest)
	}
	for range 2000 {
		at, set := b.settle()
		require.True(t, set)
		b.now = max(b.now+1, at)
	}
	for _, task := range b.tasks[12:] {
		require.Greater(t, b.enclave.Status(b.now, task).Runtime, (b.now-cs.Time(time.Second))/4, "task %d", task)
	}
}

// Threads of one process that are pinned to different cores take turns with others
// on each of them, also while one of the cores has many more turns.
func TestIASPinned(t *testing.T) {
	b := newBench(t, "ias", nil, 256)
	pinned := func(group uint32, c cs.CPU) {
		var one cs.CPUSet
		one.Add(c)
		b.enter(true, cs.Hints{Class: cs.BestEffort, Group: group}, one)
	}
	for range 4 {
		pinned(1, 0)
	}
	for range 2 {
		pinned(2, 1) // begins its turns a little later
		b.settle()
		b.now += cs.Time(30 * time.Microsecond)
		b.settle()
	}
	pinned(1, 1)
	pinned(2, 0)
	const span = 20 * time.Millisecond
	from := b.now
	for b.now-from < cs.Time(span) {
		at, set := b.settle()
		require.True(t, set)
		b.now = max(b.now+1, at)
	}
	for i, task := range b.tasks {
		// Those of a process that are pinned to a core share its half of it.
		least := cs.Time(span) / 2 / 4 / 2
		require.Greater(t, b.enclave.Status(b.now, task).Runtime, least, "task %d", i)
	}
}

// What a policy remembers of instances that are gone it uses again.
func TestIASForgets(t *testing.T) {
	b := newBench(t, "ias", nil, 256)
	for i := range 5000 {
		task := b.enter(true, cs.Hints{Group: uint32(i + 1), Class: cs.Class(i % 2)}, cs.FirstCPUs(benchCPUs))
		b.settle()
		b.now += 1000
		if i%5 == 0 {
			var pinned cs.CPUSet
			pinned.Add(cs.CPU(i % benchCPUs))
			require.NoError(t, b.enclave.SetAffinity(b.now, task, pinned))
			b.settle()
		}
		if i%3 == 0 {
			require.NoError(t, b.enclave.Block(b.now, task))
			b.settle()
		}
		require.NoError(t, b.enclave.Die(b.now, task))
		b.settle()
	}
	p, ok := b.policy.(*ias.Policy)
	require.True(t, ok)
	instances, limits, groups := p.Remembered()
	require.LessOrEqual(t, instances, 2)
	require.LessOrEqual(t, limits, 1)
	require.LessOrEqual(t, groups, 3)
}
