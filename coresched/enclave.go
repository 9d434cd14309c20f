package coresched

import "fmt"

// EnclaveOptions are the parameters of an enclave. Zero values mean the
// defaults.
type EnclaveOptions struct {
	// QueueLen is how many messages wait for an agent, at least. Default 4096.
	QueueLen int
	// Board gets each status word that changes, if it is not nil.
	Board Board
	// RunnableTimeout is how long a task may be runnable without a core before
	// the policy is held to be broken. Default 0: for ever.
	RunnableTimeout Time
}

// Board is where an enclave shows its status words to a policy elsewhere.
type Board interface {
	// Show replaces t's. allowed is nil for a task that may run on all cores
	// of its enclave, and not to be kept.
	Show(t Task, s Status, allowed *CPUSet)
}

// Enclave is a set of cores, the tasks in it, and at most one policy.
type Enclave struct {
	m         *Machine
	opts      EnclaveOptions
	cpus      CPUSet
	members   int
	free      []Task // slots of tasks that are gone
	attached  bool
	perCPU    bool
	queues    []queue // one, or one for each core of the machine
	nextHome  CPU
	destroyed bool
	counts    Counts
}

// Counts are what happened in an enclave since it was made.
type Counts struct {
	Messages uint64          `json:"messages"`
	Lost     uint64          `json:"lost"`
	Rescans  uint64          `json:"rescans"`
	Txns     uint64          `json:"transactions"`
	Results  [results]uint64 `json:"-"`
	Attached uint64          `json:"policies_attached"`
	Stalls   uint64          `json:"stalls"`
}

// NewEnclave makes an enclave of cores that belong to none yet.
func (m *Machine) NewEnclave(cpus CPUSet, o EnclaveOptions) (*Enclave, error) {
	if cpus.Empty() {
		return nil, fmt.Errorf("%w: an enclave needs at least one", ErrCPU)
	}
	for c := cpus.Next(0); c != NoCPU; c = cpus.Next(c + 1) {
		if !m.has(c) {
			return nil, fmt.Errorf("%w: %d; the machine has %d", ErrCPU, c, len(m.cpus))
		}
		if m.cpus[c].enclave != nil {
			return nil, fmt.Errorf("%w: %d is in another enclave; destroy that first", ErrCPU, c)
		}
	}
	if o.QueueLen <= 0 {
		o.QueueLen = 4096
	}
	e := &Enclave{m: m, opts: o, cpus: cpus, nextHome: NoCPU}
	for c := cpus.Next(0); c != NoCPU; c = cpus.Next(c + 1) {
		m.cpus[c].enclave = e
	}
	return e, nil
}

// CPUs returns the enclave's cores.
func (e *Enclave) CPUs() CPUSet { return e.cpus }

// Tasks returns the number of tasks in the enclave.
func (e *Enclave) Tasks() int { return e.members }

// Attached tells whether a policy is in charge.
func (e *Enclave) Attached() bool { return e.attached }

// Counts returns what happened so far.
func (e *Enclave) Counts() Counts {
	c := e.counts
	for i := range e.queues {
		c.Lost += e.queues[i].lost
	}
	return c
}

// Attach puts a policy in charge, with an agent for each core or one for all.
// It has to Rescan before its transactions are heeded.
func (e *Enclave) Attach(now Time, perCPU bool) error {
	switch {
	case e.destroyed:
		return ErrDestroyed
	case e.attached:
		return fmt.Errorf("%w; detach it first", ErrAttached)
	}
	e.keepCounts()
	e.attached, e.perCPU = true, perCPU
	n := 1
	if perCPU {
		n = len(e.m.cpus)
	}
	e.queues = make([]queue, n)
	for i := range e.queues {
		if !perCPU || e.cpus.Has(CPU(i)) {
			e.queues[i] = newQueue(e.opts.QueueLen)
			e.queues[i].overflow = true
		}
	}
	e.counts.Attached++
	e.each(func(t Task, s *taskState) {
		s.since = now // nobody was to blame for its waiting so far
		e.m.act(Adopt, NoCPU, t)
	})
	return nil
}

// Detach leaves the enclave without a policy: all tasks are the host's own
// scheduler's until the next one attaches.
func (e *Enclave) Detach(now Time) {
	if !e.attached {
		return
	}
	e.each(func(t Task, s *taskState) {
		if s.state == onCPU {
			e.off(now, t, s, runnable)
			e.show(now, t, s) // who attaches next reads it
		}
		s.waited = e.waited(now, s)
		e.m.act(Release, NoCPU, t)
	})
	e.keepCounts()
	e.attached, e.queues = false, nil
}

func (e *Enclave) keepCounts() {
	e.counts = e.Counts()
	e.queues = nil
}

// Destroy ends the enclave: its tasks are the host's, its cores nobody's.
func (e *Enclave) Destroy(now Time) {
	if e.destroyed {
		return
	}
	e.Detach(now)
	e.each(func(t Task, s *taskState) { e.forget(t, s) })
	for c := e.cpus.Next(0); c != NoCPU; c = e.cpus.Next(c + 1) {
		e.m.cpus[c].enclave = nil
	}
	e.m.free = append(e.m.free, e.free...)
	e.free, e.destroyed = nil, true
}

// each calls f for all tasks of the enclave, by rising number.
func (e *Enclave) each(f func(Task, *taskState)) {
	left := e.members
	for t := Task(1); left > 0; t++ {
		if s := &e.m.tasks[t]; s.state != absent && s.enclave == e {
			left--
			f(t, s)
		}
	}
}

// Stalled returns a task that has been runnable without a core for longer than
// the enclave's RunnableTimeout, if there is one. Time in which no core that it may
// run on could be used does not count. The caller then detaches the policy; other
// enclaves are not affected.
func (e *Enclave) Stalled(now Time) (found Task, stalled bool) {
	if !e.attached || e.opts.RunnableTimeout <= 0 {
		return NoTask, false
	}
	e.each(func(t Task, s *taskState) {
		if !stalled && s.state == runnable && now-s.since > e.opts.RunnableTimeout && e.servable(s, now-e.opts.RunnableTimeout) {
			found, stalled = t, true
		}
	})
	if stalled {
		e.counts.Stalls++
	}
	return found, stalled
}

// servable tells whether a core that a task may run on could be used from before a
// time on.
func (e *Enclave) servable(s *taskState, before Time) bool {
	for c := e.cpus.Next(0); c != NoCPU; c = e.cpus.Next(c + 1) {
		if cpu := &e.m.cpus[c]; cpu.usable() && cpu.since < before && (!s.pinned || s.allowed.Has(c)) {
			return true
		}
	}
	return false
}

// Wanting tells whether a task is runnable without a core.
func (e *Enclave) Wanting() bool {
	left := e.members
	for t := 1; left > 0; t++ {
		if s := &e.m.tasks[t]; s.state != absent && s.enclave == e {
			if s.state == runnable {
				return true
			}
			left--
		}
	}
	return false
}

// Status returns t's status word.
func (e *Enclave) Status(now Time, t Task) Status {
	s := e.m.task(t)
	if s == nil || s.enclave != e {
		return Status{CPU: NoCPU}
	}
	return Status{
		Present: true, Runnable: s.state >= runnable, OnCPU: s.state == onCPU,
		CPU: s.cpu, Seq: s.seq, Runtime: s.total(now),
	}
}

// show puts t's status word on the board.
func (e *Enclave) show(now Time, t Task, s *taskState) {
	if e.opts.Board == nil {
		return
	}
	var allowed *CPUSet
	if s.pinned {
		allowed = &s.allowed
	}
	e.opts.Board.Show(t, e.Status(now, t), allowed)
}

// Allowed tells whether t may run on core c of the enclave.
func (e *Enclave) Allowed(t Task, c CPU) bool {
	s := e.m.task(t)
	return s != nil && s.enclave == e && e.cpus.Has(c) && (!s.pinned || s.allowed.Has(c))
}

// Waited returns how long t, while the enclave had a policy, was runnable without a
// core.
func (e *Enclave) Waited(now Time, t Task) Time {
	s := e.m.task(t)
	if s == nil || s.enclave != e {
		return 0
	}
	return e.waited(now, s)
}

func (e *Enclave) waited(now Time, s *taskState) Time {
	if e.attached && s.state == runnable {
		return s.waited + now - s.since
	}
	return s.waited
}

func (s *taskState) total(now Time) Time {
	if s.state == onCPU {
		return s.runtime + now - s.since
	}
	return s.runtime
}
