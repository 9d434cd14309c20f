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

// group makes transactions, of which many are meant well.
func (w *model) group(i int) []Txn {
	g := make([]Txn, 1+w.rng.IntN(4))
	for n := range g {
		c := w.sets[i].Next(CPU(w.rng.IntN(modelCPUs)))
		if w.rng.IntN(20) == 0 || c == NoCPU {
			c = CPU(w.rng.IntN(modelCPUs+2) - 1)
		}
		t := w.pick()
		if w.rng.IntN(2) == 0 { // one that is likely to be right
			for u, f := range w.facts {
				if f.enclave == i && f.state == runnable && u > t {
					t = u
				}
			}
		}
		g[n] = Txn{CPU: c, Task: t}
		if f := w.facts[t]; f != nil {
			g[n].TaskSeq = f.seq
		}
		if w.rng.IntN(8) == 0 {
			g[n].TaskSeq--
		}
		if w.rng.IntN(4) == 0 {
			g[n].AgentSeq = w.enclaves[i].AgentSeq(w.agent(i)) - Seq(w.rng.IntN(2))
		}
	}
	return g
}

// agent returns one that may commit; where each core has one, now and then one of a
// core that is not the enclave's.
func (w *model) agent(i int) CPU {
	if w.perCPU[i] && w.rng.IntN(16) == 0 {
		return CPU(w.rng.IntN(modelCPUs+2) - 1)
	}
	if w.perCPU[i] {
		return w.sets[i].Next(0)
	}
	return NoCPU
}

// expected is the oracle: what ghOSt would answer.
func (w *model) expected(i int, agent CPU, t Txn) Result {
	if !w.attached[i] {
		return NoAgent
	}
	if t.CPU < 0 || t.CPU >= modelCPUs || !w.sets[i].Has(t.CPU) {
		return InvalidCPU
	}
	if w.offline[t.CPU] {
		return CPUOffline
	}
	if w.busy[t.CPU] {
		return CPUNotAvailable
	}
	if w.perCPU[i] && !w.sets[i].Has(agent) {
		return NoAgent
	}
	if seq, lost := w.queueOf(i, agent); lost || t.AgentSeq != 0 && t.AgentSeq != seq {
		return AgentStale
	}
	if t.Task == NoTask {
		return Complete
	}
	f := w.facts[t.Task]
	if f == nil {
		return TargetNotFound
	}
	if f.enclave != i {
		return NoPermission
	}
	if f.seq != t.TaskSeq {
		return TargetStale
	}
	if f.state == blocked {
		return TargetNotRunnable
	}
	if f.state == onCPU {
		return TargetOnCPU
	}
	if !f.allowed.Has(t.CPU) {
		return InvalidCPU
	}
	return Complete
}

func (w *model) place(t Txn) {
	w.displace(t.CPU)
	if f := w.facts[t.Task]; f != nil {
		w.turn(f, onCPU)
		f.cpu = t.CPU
	}
}

func (w *model) commit(i int, g []Txn) {
	before := w.enclaves[i].Counts()
	for _, t := range g { // one at a time: each changes what the next is checked on
		one, agent := []Txn{t}, w.agent(i)
		want := w.expected(i, agent, t)
		w.enclaves[i].Commit(w.now, agent, one)
		require.Equal(w.t, want, one[0].Result, "%+v", t)
		if want == Complete {
			w.place(t)
		}
		w.note(want.String())
	}
	w.accounted(i, before, len(g))
}

func (w *model) commitSync(i int, g []Txn) {
	before := w.enclaves[i].Counts()
	want, all, agent := make([]Result, len(g)), true, w.agent(i)
	for n, t := range g {
		want[n] = w.expected(i, agent, t)
		for _, o := range g[:n] {
			if want[n] == Complete && (o.CPU == t.CPU || o.Task == t.Task && t.Task != NoTask) {
				want[n] = TargetOnCPU
			}
		}
		all = all && want[n] == Complete
	}
	require.Equal(w.t, all, w.enclaves[i].CommitSync(w.now, agent, g))
	for n := range g {
		if !all && want[n] == Complete {
			want[n] = Poisoned
		}
		require.Equal(w.t, want[n], g[n].Result, "%+v", g)
		w.note(want[n].String())
		if all {
			w.place(g[n])
		}
	}
	w.accounted(i, before, len(g))
}

// accounted: every transaction has exactly one result.
func (w *model) accounted(i int, before Counts, n int) {
	after := w.enclaves[i].Counts()
	sum := uint64(0)
	for r := range after.Results {
		sum += after.Results[r] - before.Results[r]
	}
	require.EqualValues(w.t, n, sum)
	require.EqualValues(w.t, n, after.Txns-before.Txns)
	require.Zero(w.t, after.Results[Pending])
}

// read is what an agent does: it reads some messages, or rescans.
func (w *model) read(i int) {
	e := w.enclaves[i]
	if !w.attached[i] {
		return
	}
	agents := []CPU{NoCPU}
	if w.perCPU[i] {
		agents = agents[:0]
		for c := w.sets[i].Next(0); c != NoCPU; c = w.sets[i].Next(c + 1) {
			agents = append(agents, c)
		}
	}
	all := w.rng.IntN(3) > 0
	if !all {
		agents = agents[:1]
	}
	buf := make([]Message, 1+w.rng.IntN(8))
	for _, c := range agents {
		for e.Waiting(c) {
			n, err := e.Receive(c, buf)
			if err != nil {
				require.ErrorIs(w.t, err, ErrOverflow)
				w.rescan(i)
				w.complete(i)
				return
			}
			for k := range buf[:n] {
				w.letter(i, c, &buf[k])
				w.heed(i, &buf[k])
			}
			if !all {
				return
			}
		}
	}
	if all {
		w.complete(i)
	}
}

func (w *model) rescan(i int) {
	w.note("rescan")
	old := w.readers[i]
	w.readers[i], w.unusable[i] = map[Task]known{}, CPUSet{}
	w.discard(i)
	all := w.enclaves[i].Rescan(w.now, nil)
	w.snapshot(i, all)
	for _, m := range all {
		if m.Task == NoTask {
			w.heedCPU(i, &m)
		} else {
			if k, ok := old[m.Task]; ok {
				require.GreaterOrEqual(w.t, int32(m.Seq-k.seq), int32(0))
			}
			w.readers[i][m.Task] = known{true, m.Runnable, onOf(&m), m.Seq}
		}
	}
}

func onOf(m *Message) CPU {
	if m.OnCPU {
		return m.CPU
	}
	return NoCPU
}

func (w *model) heed(i int, m *Message) {
	w.note(m.Type.String())
	if m.Task == NoTask {
		w.heedCPU(i, m)
		return
	}
	in := origin{m.Task, NoCPU}
	if w.perCPU[i] {
		in.home = m.Home
	}
	if last, ok := w.inQueue[i][in]; ok && int32(m.Seq-last) <= 0 {
		require.FailNow(w.t, "sequence numbers rise", "%v after %d", m, last)
	}
	w.inQueue[i][in] = m.Seq
	k, ok := w.readers[i][m.Task]
	switch {
	case ok && int32(m.Seq-k.seq) <= 0:
		return // its home changed, and the new one's queue was read first
	case !ok && !w.perCPU[i]:
		require.Equal(w.t, TaskNew, m.Type, "who is told of first is new")
	case ok && k.present && !w.perCPU[i]:
		require.Equal(w.t, k.seq.next(), m.Seq, "without gaps: %v", m)
	}
	gone := m.Type == TaskDead || m.Type == TaskDeparted
	w.readers[i][m.Task] = known{!gone, m.Runnable, onOf(m), m.Seq}
}

// heedCPU: that a core can be used is told to who knows that it cannot, and so on.
func (w *model) heedCPU(i int, m *Message) {
	require.True(w.t, w.sets[i].Has(m.CPU))
	switch m.Type {
	case CPUBusy:
		require.False(w.t, w.unusable[i].Has(m.CPU))
		w.unusable[i].Add(m.CPU)
	case CPUAvailable:
		require.True(w.t, w.unusable[i].Has(m.CPU))
		w.unusable[i].Remove(m.CPU)
	}
}

// complete: who has read all messages knows all tasks, and which can run.
func (w *model) complete(i int) {
	for t, f := range w.facts {
		if f.enclave != i {
			require.False(w.t, w.readers[i][t].present)
			continue
		}
		k := w.readers[i][t]
		require.True(w.t, k.present, "task %d is lost", t)
		require.Equal(w.t, f.state >= runnable, k.runnable, "task %d", t)
		require.Equal(w.t, f.seq, k.seq, "task %d", t)
	}
	for c := range CPU(modelCPUs) {
		require.Equal(w.t, w.sets[i].Has(c) && (w.offline[c] || w.busy[c]), w.unusable[i].Has(c), "core %d", c)
	}
	for t, k := range w.readers[i] {
		require.False(w.t, k.present && w.facts[t] == nil, "task %d is dead", t)
	}
}

func (w *model) attach(i int) {
	e := w.enclaves[i]
	if w.attached[i] {
		require.ErrorIs(w.t, e.Attach(w.now, false), ErrAttached)
		if w.rng.IntN(4) == 0 {
			w.detach(i)
		}
		return
	}
	w.perCPU[i] = w.rng.IntN(2) == 0
	require.NoError(w.t, e.Attach(w.now, w.perCPU[i]))
	w.ageQueues(i)
	w.attached[i], w.readers[i], w.inQueue[i] = true, map[Task]known{}, map[origin]Seq{}
	for _, f := range w.facts {
		if f.enclave == i {
			f.since = w.now
		}
	}
	w.note("attach")
}

func (w *model) detach(i int) {
	w.keep(i)
	w.enclaves[i].Detach(w.now)
	w.released(i)
}

func (w *model) released(i int) {
	for _, f := range w.facts {
		if f.enclave == i && f.state >= runnable {
			w.turn(f, runnable)
		}
	}
	w.attached[i] = false
}

func (w *model) watchdog(i int) {
	late := false
	for _, f := range w.facts {
		late = late || f.enclave == i && f.state == runnable && w.now-max(f.since, w.servable(f)) > timeout
	}
	t, stalled := w.enclaves[i].Stalled(w.now)
	require.Equal(w.t, late && w.attached[i], stalled)
	if !stalled {
		return
	}
	w.note("stall")
	w.accounts[i].stalls++
	require.Equal(w.t, runnable, w.facts[t].state)
	w.detach(i)
}

// servable is since when a core could be used that a task may run on.
func (w *model) servable(f *fact) Time {
	since := w.now
	for c := range CPU(modelCPUs) {
		if w.sets[f.enclave].Has(c) && f.allowed.Has(c) && !w.offline[c] && !w.busy[c] {
			since = min(since, w.freed[c])
		}
	}
	return since
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
