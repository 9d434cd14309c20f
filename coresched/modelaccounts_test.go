package coresched

import (
	"math"

	"github.com/stretchr/testify/require"
)

// What the model knows besides who is where: what each message has to say, who has
// to be released, and the accounts of tasks and enclaves.

// modelQueue is how many messages an agent's queue holds.
const modelQueue = 16

// accounts are an enclave's.
type accounts struct {
	board *modelBoard
	// owed are messages about tasks that were posted and not yet read; of those about
	// cores each core has a list.
	owed    map[name]Message
	cores   [modelCPUs][]Message
	seqs    map[CPU]Seq // of the agents, as read
	began   Seq         // of all agents, when the policy attached
	posted  uint32      // since the policy attached
	waiting int         // in the queue of the one agent of all
	lost    bool        // by it
	// In all.
	messages, read, discarded, rescans, attached, stalls uint64
}

// name is what a message about a task is called: it is the only one.
type name struct {
	task Task
	seq  Seq
}

// modelBoard holds status words as they were shown.
type modelBoard [2*modelTasks + 1]word

type word struct {
	Status
	shown, pinned bool
	allowed       CPUSet
}

// Show implements Board.
func (b *modelBoard) Show(t Task, s Status, allowed *CPUSet) {
	b[t] = word{Status: s, shown: true, pinned: allowed != nil}
	if allowed != nil {
		b[t].allowed = *allowed
	}
}

// age has some of the machine's numbers be of tasks of long ago, whose sequence
// numbers are about to wrap around.
func (w *model) age() {
	for t := Task(modelTasks); t >= 1; t-- {
		w.m.tasks = append(w.m.tasks, taskState{})
		w.m.free = append(w.m.free, t)
	}
	for t := Task(1); t <= modelTasks; t++ {
		w.lastSeq[t] = math.MaxUint32 - Seq(w.rng.IntN(40))
		w.m.tasks[t].seq = w.lastSeq[t]
	}
}

// ageQueues has all that counts messages of a new policy be about to wrap around.
func (w *model) ageQueues(i int) {
	a := &w.accounts[i]
	a.began = math.MaxUint32 - Seq(w.rng.IntN(40))
	a.seqs = map[CPU]Seq{}
	for c := range w.enclaves[i].queues {
		q := &w.enclaves[i].queues[c]
		q.seq, q.head = a.began, math.MaxUint32-9
		q.tail = q.head
		a.seqs[CPU(c)] = a.began
	}
	a.seqs[NoCPU] = a.began
	a.owed, a.cores = map[name]Message{}, [modelCPUs][]Message{}
	a.posted, a.waiting, a.lost = 0, 0, true
	a.attached++
}

// total is the time that f has had a core.
func (f *fact) total(now Time) Time {
	if f.state == onCPU {
		return f.runtime + now - f.since
	}
	return f.runtime
}

// turn has f stand otherwise from now on.
func (w *model) turn(f *fact, to state) {
	switch {
	case f.state == onCPU:
		f.runtime += w.now - f.since
	case f.state == runnable && w.attached[f.enclave]:
		f.waited += w.now - f.since
	}
	f.state, f.since = to, w.now
}

// told notes that there is a message about t as it stands now, about something that
// happened at the given time.
func (w *model) told(t Task, f *fact, typ MessageType, at Time) {
	f.seq = f.seq.next()
	if f.seq == 0 {
		require.FailNow(w.t, "0 is no message's")
	}
	if !w.attached[f.enclave] {
		return
	}
	w.accounts[f.enclave].owed[name{t, f.seq}] = Message{
		Type: typ, Runnable: f.state >= runnable, OnCPU: f.state == onCPU, Task: t, Seq: f.seq, CPU: f.cpu,
		Runtime: f.total(w.now), At: at, Hints: f.hints,
	}
	w.accounts[f.enclave].post()
}

// toldCPU is told for a message about a core.
func (w *model) toldCPU(typ MessageType, c CPU) {
	for i := 1; i <= 2; i++ {
		if w.sets[i].Has(c) && w.attached[i] {
			a := &w.accounts[i]
			a.cores[c] = append(a.cores[c], Message{Type: typ, CPU: c, At: w.now})
			a.post()
		}
	}
}

func (a *accounts) post() {
	a.messages++
	a.posted++
	switch {
	case a.lost:
	case a.waiting == modelQueue:
		a.lost = true
	default:
		a.waiting++
	}
}

// after is s, n messages later.
func after(s Seq, n uint32) Seq {
	if uint64(s)+uint64(n) > math.MaxUint32 {
		n++ // none is called 0
	}
	return s + Seq(n)
}

// queueOf returns the number of the last message for an agent, and whether some were
// lost. Where each core has an agent, who hears of which task is the machine's choice;
// then only the sum of all is checked (checkAccounts).
func (w *model) queueOf(i int, agent CPU) (last Seq, lost bool) {
	if a := &w.accounts[i]; !w.perCPU[i] {
		return after(a.began, a.posted), a.lost
	}
	q := w.enclaves[i].queue(agent)
	return q.seq, q.overflow
}

// letter: m, for the agent of core c, says what it was to say, and is its next.
func (w *model) letter(i int, c CPU, m *Message) {
	a := &w.accounts[i]
	a.read++
	a.waiting--
	a.seqs[c] = after(a.seqs[c], 1)
	if m.Agent != a.seqs[c] || !w.sets[i].Has(m.Home) || w.perCPU[i] && m.Home != c {
		require.FailNow(w.t, "a message for somebody else", "%+v for agent %d, whose next is %d", m, c, a.seqs[c])
	}
	got, want := *m, Message{}
	got.Home, got.Agent = 0, 0
	if m.Task == NoTask {
		require.Equal(w.t, m.CPU, m.Home)
		require.NotEmpty(w.t, a.cores[m.CPU], "%+v", m)
		want, a.cores[m.CPU] = a.cores[m.CPU][0], a.cores[m.CPU][1:]
	} else {
		want = a.owed[name{m.Task, m.Seq}]
		delete(a.owed, name{m.Task, m.Seq})
	}
	if got != want {
		require.FailNow(w.t, "a message says something else", "%+v; to be %+v", got, want)
	}
}

// discard: a rescan makes up for all that was not read.
func (w *model) discard(i int) {
	a := &w.accounts[i]
	a.rescans++
	a.discarded += w.unread(i)
	a.owed, a.cores, a.waiting, a.lost = map[name]Message{}, [modelCPUs][]Message{}, 0, false
}

// keep is discard at the end of a policy.
func (w *model) keep(i int) { w.accounts[i].discarded += w.unread(i) }

func (w *model) unread(i int) (n uint64) {
	for c := range w.enclaves[i].queues {
		q := &w.enclaves[i].queues[c]
		n += uint64(q.tail - q.head)
	}
	return n
}

// snapshot: all is what a rescan has to say: each task once, as it stands, and the
// cores that cannot be used.
func (w *model) snapshot(i int, all []Message) {
	e, tasks, cores := w.enclaves[i], map[Task]Message{}, CPUSet{}
	for _, m := range all {
		require.True(w.t, w.sets[i].Has(m.Home))
		require.Equal(w.t, e.AgentSeq(m.Home), m.Agent)
		if w.perCPU[i] {
			w.accounts[i].seqs[m.Home] = m.Agent
		}
		if m.Task == NoTask {
			require.Equal(w.t, Message{Type: CPUBusy, CPU: m.CPU, Home: m.CPU, Agent: m.Agent, At: w.now}, m)
			cores.Add(m.CPU)
			continue
		}
		f := w.facts[m.Task]
		if f.pinned {
			require.True(w.t, f.allowed.Has(m.Home), "who hears of a task can run it")
		}
		m.Home, m.Agent = 0, 0
		tasks[m.Task] = m
	}
	for c := range CPU(modelCPUs) {
		require.Equal(w.t, w.sets[i].Has(c) && (w.offline[c] || w.busy[c]), cores.Has(c))
		if w.sets[i].Has(c) {
			require.False(w.t, e.Waiting(c), "nothing is told twice")
			w.accounts[i].seqs[c] = e.AgentSeq(c)
		}
	}
	w.accounts[i].seqs[NoCPU] = e.AgentSeq(NoCPU)
	want := map[Task]Message{}
	for t, f := range w.facts {
		if f.enclave != i {
			continue
		}
		m := Message{
			Type: TaskNew, Runnable: f.state >= runnable, OnCPU: f.state == onCPU, Task: t, Seq: f.seq, CPU: f.cpu,
			Runtime: f.total(w.now), At: w.now, Hints: f.hints,
		}
		if f.state == runnable {
			m.At = f.since
		}
		want[t] = m
	}
	require.Equal(w.t, want, tasks)
}

// checkAccounts compares what is told of tasks and enclaves with what happened.
func (w *model) checkAccounts() {
	adopted := 0
	for t, f := range w.facts {
		e := w.enclaves[f.enclave]
		s := e.Status(w.now, t)
		waited := f.waited
		if f.state == runnable && w.attached[f.enclave] {
			waited += w.now - f.since
		}
		if s.CPU != f.cpu || s.Runtime != f.total(w.now) || e.Waited(w.now, t) != waited {
			require.FailNow(w.t, "accounts", "task %d: %+v waited %v, but %+v", t, s, e.Waited(w.now, t), f)
		}
		if w.attached[f.enclave] {
			adopted++
		}
		if w.adopted[t] != w.attached[f.enclave] {
			require.FailNow(w.t, "who has a policy is adopted, and nobody else", "task %d: %+v", t, f)
		}
		w.checkWord(t, f, s)
	}
	if adopted != len(w.adopted) {
		require.FailNow(w.t, "who has left is released", "%v", w.adopted)
	}
	for i := 1; i <= 2; i++ {
		w.checkCounts(i)
		w.checkGone(i)
	}
}

// checkWord: the board shows t as it stands; the time that it has had a core only up
// to when that was last shown.
func (w *model) checkWord(t Task, f *fact, s Status) {
	shown := &w.accounts[f.enclave].board[t]
	runtime := shown.Runtime
	if f.state == onCPU {
		shown.Runtime = s.Runtime
	}
	if shown.Status != s || f.pinned != shown.pinned || f.pinned && shown.allowed != f.allowed {
		require.FailNow(w.t, "the board", "task %d: %+v, but %+v", t, shown, s)
	}
	shown.Runtime = runtime
	for c := range CPU(modelCPUs) {
		if w.enclaves[f.enclave].Allowed(t, c) != (w.sets[f.enclave].Has(c) && f.allowed.Has(c)) {
			require.FailNow(w.t, "where it may run", "task %d core %d: %+v", t, c, f)
		}
	}
}

// checkGone: of who is not in an enclave nothing is shown there.
func (w *model) checkGone(i int) {
	for t := range w.accounts[i].board {
		shown := &w.accounts[i].board[t]
		if !shown.Present && (!shown.shown || shown.Status == Status{CPU: NoCPU}) {
			continue
		}
		if f := w.facts[Task(t)]; f == nil || f.enclave != i {
			require.FailNow(w.t, "a word of a task that is gone", "task %d: %+v", t, shown)
		}
	}
}

func (w *model) checkCounts(i int) {
	e, a := w.enclaves[i], &w.accounts[i]
	got := e.Counts()
	lost := a.messages - a.read - a.discarded - w.unread(i)
	if got.Messages != a.messages || got.Lost != lost || got.Rescans != a.rescans || got.Attached != a.attached || got.Stalls != a.stalls {
		require.FailNow(w.t, "counts", "%+v; %d lost, %+v", got, lost, a)
	}
	wanting := false
	for _, f := range w.facts {
		wanting = wanting || f.enclave == i && f.state == runnable
	}
	if wanting != e.Wanting() {
		require.FailNow(w.t, "who wants a core", "%v", wanting)
	}
	if w.attached[i] {
		w.checkQueues(i)
	}
}

// checkQueues: messages are numbered, each by one.
func (w *model) checkQueues(i int) {
	e, a := w.enclaves[i], &w.accounts[i]
	if !w.perCPU[i] {
		if e.AgentSeq(NoCPU) != after(a.began, a.posted) || e.Waiting(NoCPU) != (a.lost || a.waiting > 0) {
			require.FailNow(w.t, "the agent's queue", "last %d, %+v", e.AgentSeq(NoCPU), a)
		}
		return
	}
	sum := uint32(0)
	for c := w.sets[i].Next(0); c != NoCPU; c = w.sets[i].Next(c + 1) {
		n := uint32(e.AgentSeq(c) - a.began)
		if e.AgentSeq(c) < a.began {
			n-- // none is called 0
		}
		sum += n
	}
	if a.posted != sum {
		require.FailNow(w.t, "the agents' queues", "%d messages, but %+v", sum, a)
	}
}
