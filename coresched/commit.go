package coresched

// Commit checks the transactions of a group, one after the other, and gives
// effect to each that passes. It sets the Result of every one and returns how
// many are Complete. agent is the core whose agent commits, NoCPU for the one of all.
func (e *Enclave) Commit(now Time, agent CPU, group []Txn) (complete int) {
	for i := range group {
		t := &group[i]
		if t.Result = e.check(agent, t); t.Result == Complete {
			e.apply(now, t)
			complete++
		}
		e.count(t.Result)
	}
	return complete
}

// CommitSync is Commit for a sync group: all take effect or none. If one
// fails, those that would have passed are Poisoned. Two that want the same core
// or the same task exclude each other.
func (e *Enclave) CommitSync(now Time, agent CPU, group []Txn) (ok bool) {
	ok = true
	for i := range group {
		t := &group[i]
		t.Result = e.check(agent, t)
		if t.Result == Complete && rivals(group[:i], t) {
			t.Result = TargetOnCPU
		}
		ok = ok && t.Result == Complete
	}
	for i := range group {
		t := &group[i]
		switch {
		case ok:
			e.apply(now, t)
		case t.Result == Complete:
			t.Result = Poisoned
		}
		e.count(t.Result)
	}
	return ok
}

// rivals tells whether one of earlier wants t's core or task. Groups are small:
// at most one transaction for each core.
func rivals(earlier []Txn, t *Txn) bool {
	for i := range earlier {
		o := &earlier[i]
		if o.CPU == t.CPU || t.Task != NoTask && o.Task == t.Task {
			return true
		}
	}
	return false
}

func (e *Enclave) count(r Result) {
	e.counts.Txns++
	e.counts.Results[r]++
}

// ResultCount returns how many transactions ended with r.
func (c *Counts) ResultCount(r Result) uint64 { return c.Results[r] }

// check returns what would become of t, without changing anything.
func (e *Enclave) check(agent CPU, t *Txn) Result {
	if !e.attached {
		return NoAgent
	}
	if r := e.checkCPU(t.CPU); r != Complete {
		return r
	}
	if r := e.checkAgent(agent, t.AgentSeq); r != Complete {
		return r
	}
	if t.Task == NoTask {
		return Complete
	}
	return e.checkTarget(t)
}

func (e *Enclave) checkCPU(c CPU) Result {
	if !e.cpus.Has(c) {
		return InvalidCPU
	}
	switch s := &e.m.cpus[c]; {
	case s.offline:
		return CPUOffline
	case s.busy:
		return CPUNotAvailable
	}
	return Complete
}

// checkAgent fails an agent that has not heeded its messages, or lost some.
func (e *Enclave) checkAgent(agent CPU, seq Seq) Result {
	if e.perCPU && !e.cpus.Has(agent) {
		return NoAgent
	}
	q := e.queue(agent)
	if q.overflow || seq != 0 && seq != q.seq {
		return AgentStale
	}
	return Complete
}

func (e *Enclave) checkTarget(t *Txn) Result {
	s := e.m.task(t.Task)
	switch {
	case s == nil:
		return TargetNotFound
	case s.enclave != e:
		return NoPermission
	case s.seq != t.TaskSeq:
		return TargetStale
	case s.state == blocked:
		return TargetNotRunnable
	case s.state == onCPU:
		return TargetOnCPU
	case s.pinned && !s.allowed.Has(t.CPU):
		return InvalidCPU
	}
	return Complete
}

// apply gives t's core to its target. Who has the core is preempted, and told so.
func (e *Enclave) apply(now Time, t *Txn) {
	e.takeOff(now, t.CPU)
	if t.Task == NoTask {
		return
	}
	s := &e.m.tasks[t.Task]
	s.waited = e.waited(now, s)
	s.state, s.cpu, s.since = onCPU, t.CPU, now
	e.m.cpus[t.CPU].running = t.Task
	e.show(now, t.Task, s)
	e.m.act(Run, t.CPU, t.Task)
}
