package coresched

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The model check: random events and transactions against a machine of two
// enclaves, compared after every step with a model that shares no code with
// it: what the actions amount to, what the events amount to, what a reader of the
// messages knows, and (modelaccounts_test.go) what each message and account says.

const (
	modelCPUs  = 6
	modelTasks = 24
	timeout    = 400 * time.Microsecond
)

// fact is the truth about a task, by the events told to the machine.
type fact struct {
	enclave int // 0: no such task
	state   state
	since   Time
	cpu     CPU  // where it is, or was last
	pinned  bool // allowed was said
	allowed CPUSet
	seq     Seq
	hints   Hints
	runtime Time // up to since
	waited  Time // likewise
}

// known is what a reader of one enclave's messages knows of a task.
type known struct {
	present, runnable bool
	on                CPU
	seq               Seq
}

// origin is one task's messages in one queue.
type origin struct {
	task Task
	home CPU
}

type model struct {
	t        *testing.T
	rng      *rand.Rand
	m        *Machine
	enclaves [3]*Enclave // from 1 on
	attached [3]bool
	perCPU   [3]bool
	sets     [3]CPUSet
	facts    map[Task]*fact
	lastSeq  map[Task]Seq // also of tasks that are gone
	offline  [modelCPUs]bool
	freed    [modelCPUs]Time // since when it can be used
	busy     [modelCPUs]bool
	// mirror is the hardware, as the actions change it.
	mirror   [modelCPUs]Task
	adopted  map[Task]bool
	readers  [3]map[Task]known
	unusable [3]CPUSet // cores, as a reader knows
	inQueue  [3]map[origin]Seq
	now      Time
	seen     map[string]int
	accounts [3]accounts
}

func newModel(t *testing.T, seed uint64) *model {
	m, err := NewMachine(modelCPUs)
	require.NoError(t, err)
	w := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), m: m, facts: map[Task]*fact{}, lastSeq: map[Task]Seq{},
		adopted: map[Task]bool{}, seen: map[string]int{},
	}
	w.age()
	for i := 1; i <= 2; i++ {
		w.make(i)
	}
	return w
}

// make makes enclave i: 1 has cores 0 to 3, 2 has 4 and 5.
func (w *model) make(i int) {
	set := FirstCPUs(4)
	if i == 2 {
		set = CPUSet{}
		set.Add(4)
		set.Add(5)
	}
	w.accounts[i] = accounts{board: &modelBoard{}}
	e, err := w.m.NewEnclave(set, EnclaveOptions{QueueLen: modelQueue, RunnableTimeout: timeout, Board: w.accounts[i].board})
	require.NoError(w.t, err)
	w.enclaves[i], w.sets[i], w.readers[i] = e, set, map[Task]known{}
	w.inQueue[i] = map[origin]Seq{}
}

func (w *model) note(what string) { w.seen[what]++ }

// pick returns a random task, now and then one that does not exist.
func (w *model) pick() (t Task) {
	for range 3 {
		if t = Task(w.rng.IntN(2*modelTasks + 2)); w.facts[t] != nil {
			break
		}
	}
	return t
}

func (w *model) step() {
	w.now += Time(w.rng.IntN(2000))
	i := 1 + w.rng.IntN(2)
	switch n := w.rng.IntN(100); {
	case n < 8:
		w.enter(i)
	case n < 12:
		w.leave(i)
	case n < 40:
		w.event(i)
	case n < 42:
		w.affinity(i)
	case n < 44:
		w.hint(i)
	case n < 46:
		w.cpu()
	case n < 47:
		w.tick(i)
	case n < 65:
		w.commit(i, w.group(i))
	case n < 75:
		w.commitSync(i, w.group(i))
	case n < 96:
		w.read(i)
	case n < 98:
		w.attach(i)
	case n < 99:
		w.watchdog(i)
	default:
		w.end(i)
	}
	w.carryOut()
	w.check()
}

func (w *model) enter(i int) {
	if len(w.facts) >= modelTasks {
		return
	}
	f := &fact{enclave: i, state: blocked, since: w.now, cpu: NoCPU, allowed: FirstCPUs(modelCPUs)}
	if w.rng.IntN(2) == 0 {
		f.state = runnable
	}
	t, err := w.enclaves[i].Enter(w.now, f.state == runnable, Hints{})
	require.NoError(w.t, err)
	require.NotContains(w.t, w.facts, t, "a task's number is not given away twice")
	require.LessOrEqual(w.t, t, Task(2*modelTasks), "numbers are used again")
	f.seq = w.lastSeq[t]
	w.facts[t] = f
	w.told(t, f, TaskNew, w.now)
}

func (w *model) leave(i int) {
	t, typ := w.pick(), TaskDead
	call := w.enclaves[i].Die
	if w.rng.IntN(2) == 0 {
		call, typ = w.enclaves[i].Depart, TaskDeparted
	}
	err := call(w.now, t)
	f := w.facts[t]
	if f == nil || f.enclave != i {
		require.ErrorIs(w.t, err, ErrTask)
		return
	}
	require.NoError(w.t, err)
	w.turn(f, blocked)
	w.told(t, f, typ, w.now)
	w.lastSeq[t] = f.seq
	delete(w.facts, t)
	if typ == TaskDead {
		delete(w.adopted, t) // and nobody has to release it
	}
}

func (w *model) event(i int) {
	t := w.pick()
	e := w.enclaves[i]
	kind, at := w.rng.IntN(4), w.now
	wakeup := e.Wakeup
	if kind == 0 && w.rng.IntN(2) == 0 { // for work that is older
		at -= Time(w.rng.IntN(5000))
		wakeup = func(now Time, t Task) error { return e.WakeupSince(now, at, t) }
	}
	call := [...]func(Time, Task) error{wakeup, e.Block, e.Yield, e.Preempt}[kind]
	typ := [...]MessageType{TaskWakeup, TaskBlocked, TaskYield, TaskPreempt}[kind]
	from := [...]state{blocked, onCPU, onCPU, onCPU}[kind]
	to := [...]state{runnable, blocked, runnable, runnable}[kind]
	err := call(w.now, t)
	switch f := w.facts[t]; {
	case f == nil || f.enclave != i:
		require.ErrorIs(w.t, err, ErrTask)
	case f.state != from && !(to == blocked && f.state == runnable):
		require.ErrorIs(w.t, err, ErrState)
	default:
		require.NoError(w.t, err)
		w.turn(f, to)
		w.told(t, f, typ, at)
	}
}

func (w *model) affinity(i int) {
	t := w.pick()
	var set CPUSet
	for range 1 + w.rng.IntN(4) {
		set.Add(CPU(w.rng.IntN(modelCPUs)))
	}
	err := w.enclaves[i].SetAffinity(w.now, t, set)
	f := w.facts[t]
	switch {
	case f == nil || f.enclave != i:
		require.ErrorIs(w.t, err, ErrTask)
		return
	case !overlap(set, w.sets[i]):
		require.ErrorIs(w.t, err, ErrCPU)
		return
	}
	require.NoError(w.t, err)
	f.allowed, f.pinned = set, true
	if f.state == onCPU && !set.Has(f.cpu) {
		w.displace(f.cpu)
	}
	w.told(t, f, TaskAffinityChanged, w.now)
}

// hint: others are told of if the task can run, the same never.
func (w *model) hint(i int) {
	t := w.pick()
	h := Hints{Nice: int8(w.rng.IntN(2))}
	err := w.enclaves[i].Hint(w.now, t, h)
	f := w.facts[t]
	if f == nil || f.enclave != i {
		require.ErrorIs(w.t, err, ErrTask)
		return
	}
	require.NoError(w.t, err)
	changed := h != f.hints
	f.hints = h
	if changed && f.state != blocked {
		w.told(t, f, TaskPriorityChanged, w.now)
	}
}

func overlap(a, b CPUSet) bool {
	for c := CPU(0); c < modelCPUs; c++ {
		if a.Has(c) && b.Has(c) {
			return true
		}
	}
	return false
}

func (w *model) cpu() {
	c := CPU(w.rng.IntN(modelCPUs))
	was := w.offline[c] || w.busy[c]
	w.offline[c], w.busy[c] = w.rng.IntN(4) == 0, w.rng.IntN(4) == 0
	require.NoError(w.t, w.m.SetCPU(w.now, c, !w.offline[c], w.busy[c]))
	is := w.offline[c] || w.busy[c]
	switch {
	case is && !was:
		w.displace(c)
		w.toldCPU(CPUBusy, c)
	case was && !is:
		w.freed[c] = w.now
		w.toldCPU(CPUAvailable, c)
	}
}

// tick: an agent is told of its core's timer.
func (w *model) tick(i int) {
	c := CPU(w.rng.IntN(modelCPUs+2) - 1)
	err := w.enclaves[i].Tick(w.now, c)
	if w.sets[i].Has(c) {
		require.NoError(w.t, err)
		w.toldCPU(CPUTick, c)
	} else {
		require.ErrorIs(w.t, err, ErrCPU)
	}
}

func (w *model) displace(c CPU) {
	for t, f := range w.facts {
		if f.state == onCPU && f.cpu == c {
			w.turn(f, runnable)
			w.told(t, f, TaskPreempt, w.now)
		}
	}
}

func (w *model) end(i int) {
	if w.rng.IntN(4) > 0 {
		return
	}
	w.note("destroy")
	w.keep(i)
	w.enclaves[i].Destroy(w.now)
	w.released(i)
	for t, f := range w.facts {
		if f.enclave == i {
			w.lastSeq[t] = f.seq
			delete(w.facts, t)
		}
	}
	_, err := w.enclaves[i].Enter(w.now, true, Hints{})
	require.ErrorIs(w.t, err, ErrDestroyed)
	w.make(i)
}

// carryOut does to the mirror what the actions say.
func (w *model) carryOut() {
	for _, a := range w.m.Actions() {
		switch a.Kind {
		case Adopt:
			if w.adopted[a.Task] {
				require.FailNow(w.t, "adopted twice", "task %d", a.Task)
			}
			w.adopted[a.Task] = true
		case Release:
			if slices.Contains(w.mirror[:], a.Task) || !w.adopted[a.Task] {
				require.FailNow(w.t, "released on a core, or without having been adopted", "task %d", a.Task)
			}
			delete(w.adopted, a.Task)
		case Stop:
			if w.mirror[a.CPU] != a.Task {
				require.FailNow(w.t, "stop of what does not run there")
			}
			w.mirror[a.CPU] = NoTask
		case Run:
			if !w.adopted[a.Task] || w.mirror[a.CPU] != NoTask || slices.Contains(w.mirror[:], a.Task) {
				require.FailNow(w.t, "two tasks on a core, or a task on two", "%+v: %v", a, w.mirror)
			}
			w.mirror[a.CPU] = a.Task
		}
	}
}

// check compares machine, mirror and facts.
func (w *model) check() {
	running := 0
	for c, t := range w.mirror {
		if w.m.Running(CPU(c)) != t {
			require.FailNow(w.t, "mirror", "core %d: %d, machine says %d", c, t, w.m.Running(CPU(c)))
		}
		if t == NoTask {
			continue
		}
		running++
		f := w.facts[t]
		if f == nil || f.state != onCPU || f.cpu != CPU(c) || !w.sets[f.enclave].Has(CPU(c)) || !f.allowed.Has(CPU(c)) ||
			w.offline[c] || w.busy[c] || !w.attached[f.enclave] {
			require.FailNow(w.t, "a task where it may not be", "core %d task %d: %+v", c, t, f)
		}
	}
	for t, f := range w.facts {
		if f.state == onCPU {
			running--
		}
		s := w.enclaves[f.enclave].Status(w.now, t)
		if !s.Present || s.Seq != f.seq || s.Runnable != (f.state >= runnable) || s.OnCPU != (f.state == onCPU) {
			require.FailNow(w.t, "status word", "task %d: %+v, but %+v", t, s, f)
		}
	}
	require.Zero(w.t, running)
	w.checkAccounts()
}

func TestModel(t *testing.T) {
	steps := 1_000_000
	if testing.Short() {
		steps = 100_000
	}
	const seed = 20211026
	w := newModel(t, seed)
	for n := range steps {
		w.step()
		if t.Failed() {
			t.Fatalf("seed %d, step %d", seed, n)
		}
	}
	for r := Complete; r < results; r++ {
		require.NotZero(t, w.seen[r.String()], "%v never came up in %s", r, fmt.Sprint(w.seen))
	}
	for typ := TaskNew; typ < messageTypes; typ++ {
		require.NotZero(t, w.seen[typ.String()], typ)
	}
	for _, what := range []string{"rescan", "attach", "stall", "destroy"} {
		require.NotZero(t, w.seen[what], what)
	}
}
