package coresched

import (
	"github.com/stretchr/testify/require"
)

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
