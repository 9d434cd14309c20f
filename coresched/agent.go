package coresched

// Agent runs a policy: it keeps its View and stamps its transactions. Who
// drives it passes messages in and transactions out. For one goroutine at a
// time.
type Agent struct {
	policy Policy
	traits Traits
	view   View
	seqs   []Seq // by agent; the last message read
}

// NewAgent returns an agent that runs p. Start comes next.
func NewAgent(p Policy) *Agent { return &Agent{policy: p, traits: p.Traits()} }

// Traits returns the policy's.
func (a *Agent) Traits() Traits { return a.traits }

// View returns what the agent knows.
func (a *Agent) View() *View { return &a.view }

// Start begins anew in an enclave of cores cpus, with what Enclave.Rescan
// returned.
func (a *Agent) Start(words Words, cpus CPUSet, snapshot []Message) {
	last := NoCPU
	for c := cpus.Next(0); c != NoCPU; c = cpus.Next(c + 1) {
		last = c
	}
	a.view = View{words: words, cpus: cpus, idle: cpus, cpu: make([]viewCPU, last+1), tasks: make([]viewTask, 1, len(snapshot)+1)}
	a.seqs = make([]Seq, last+2)
	a.policy.Start(&a.view)
	for i := range snapshot {
		a.Deliver(&snapshot[i])
	}
}

// Synced says that the agent of core c has read all up to seq, without having
// seen a message.
func (a *Agent) Synced(c CPU, seq Seq) { a.seqs[c+1] = seq }

// Rescan is Start with what e, in the same process, says of itself.
func (a *Agent) Rescan(now Time, e *Enclave) {
	a.Start(e, e.CPUs(), e.Rescan(now, nil))
	if !a.traits.PerCPU {
		return
	}
	for c := e.cpus.Next(0); c != NoCPU; c = e.cpus.Next(c + 1) {
		a.Synced(c, e.AgentSeq(c))
	}
}

// Deliver passes one message to the policy. A message tells how its target
// stands after it, so that one that is older than what is known adds nothing.
func (a *Agent) Deliver(m *Message) {
	if !a.believable(m) {
		return
	}
	if a.traits.PerCPU {
		a.seqs[m.Home+1] = m.Agent
	}
	if a.view.stale(m) {
		return
	}
	if m.Task == NoTask {
		a.view.noteCPU(m)
	} else {
		a.view.noteTask(m)
	}
	a.policy.Handle(m)
}

// believable refuses messages that no actuator sends, before they index
// anything: the agent may read them from memory that others can write.
func (a *Agent) believable(m *Message) bool {
	v := &a.view
	cpuOK := func(c CPU) bool { return v.cpus.Has(c) }
	switch {
	case m.Type == 0 || m.Type >= messageTypes || m.Task > MaxTasks || !cpuOK(m.Home):
		return false
	case m.Type >= CPUTick:
		return m.Task == NoTask && cpuOK(m.CPU)
	case m.Task == NoTask || m.Hints.Class >= classes || m.Hints.Nice < MinNice || m.Hints.Nice > MaxNice:
		return false
	case m.CPU != NoCPU && !cpuOK(m.CPU) || m.OnCPU && m.CPU == NoCPU:
		return false
	}
	return true
}

// stale tells whether more recent news of m's target is known: a task that
// changed its home has messages in two queues.
func (v *View) stale(m *Message) bool {
	return m.Task != NoTask && int(m.Task) < len(v.tasks) && v.tasks[m.Task].seq != 0 && int32(m.Seq-v.tasks[m.Task].seq) <= 0
}

func (v *View) noteCPU(m *Message) {
	switch m.Type {
	case CPUBusy:
		v.busy.Add(m.CPU)
		v.idle.Remove(m.CPU)
	case CPUAvailable:
		v.busy.Remove(m.CPU)
		v.release(m.CPU)
	}
}

func (v *View) noteTask(m *Message) {
	for int(m.Task) >= len(v.tasks) {
		v.tasks = append(v.tasks, viewTask{})
	}
	t := &v.tasks[m.Task]
	if t.present && t.on != NoCPU && v.cpu[t.on].running == m.Task && !m.OnCPU {
		v.cpu[t.on].running = NoTask
		v.release(t.on)
	}
	at := m.At
	if t.present && t.runnable && t.on == NoCPU && m.Runnable {
		at = t.at // it goes on waiting
	}
	gone := m.Type == TaskDead || m.Type == TaskDeparted
	*t = viewTask{seq: m.Seq, present: !gone, runnable: m.Runnable, on: NoCPU, hints: m.Hints, runtime: m.Runtime, at: at}
	switch {
	case !m.OnCPU:
	case v.cpu[m.CPU].running == m.Task: // it goes on
		t.on = m.CPU
	default:
		v.take(m.CPU, m.Task, m.At)
	}
}

func (v *View) take(c CPU, t Task, now Time) {
	v.tasks[t].on = c
	v.cpu[c] = viewCPU{t, now}
	v.idle.Remove(c)
}

// release makes a core idle if it can be used and nobody has it.
func (v *View) release(c CPU) {
	if v.cpu[c].running == NoTask && v.cpus.Has(c) && !v.busy.Has(c) {
		v.idle.Add(c)
	}
}

// Decide empties b and has the policy fill it, for the agent of core c or NoCPU.
func (a *Agent) Decide(c CPU, now Time, b *Batch) {
	*b = Batch{view: &a.view, txns: b.txns[:0]}
	if a.traits.PerCPU {
		b.seq = a.seqs[c+1]
	}
	a.policy.Schedule(c, now, b)
}

// Commit has the enclave commit b as the policy's traits say.
func (a *Agent) Commit(e *Enclave, now Time, c CPU, b *Batch) {
	if a.traits.Group == Sync {
		e.CommitSync(now, c, b.txns)
		return
	}
	e.Commit(now, c, b.txns)
}

// Settle takes note of the results of b's transactions.
func (a *Agent) Settle(now Time, b *Batch) {
	v := &a.view
	for i := range b.txns {
		t := &b.txns[i]
		if t.Result == Complete {
			v.displace(t.CPU)
			if t.Task != NoTask {
				v.take(t.CPU, t.Task, now)
			}
		}
		v.release(t.CPU)
		a.policy.Done(t)
	}
}

// displace notes that who has c loses it. A message will say so to the policy.
func (v *View) displace(c CPU) {
	if old := v.cpu[c].running; old != NoTask {
		v.tasks[old].on = NoCPU
		v.cpu[c].running = NoTask
	}
}
