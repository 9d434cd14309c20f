package coresched

import "fmt"

// What happens to tasks, told by whoever drives the Machine. Each becomes one
// message, whose sequence number is the next of its target.

// Enter brings a task into the enclave.
func (e *Enclave) Enter(now Time, canRun bool, h Hints) (Task, error) {
	if e.destroyed {
		return NoTask, ErrDestroyed
	}
	t, err := e.m.slot(e)
	if err != nil {
		return NoTask, err
	}
	s := &e.m.tasks[t]
	*s = taskState{enclave: e, state: blocked, seq: s.seq, cpu: NoCPU, home: s.home, since: now, hints: h}
	if canRun {
		s.state = runnable
	}
	e.members++
	if e.attached {
		e.m.act(Adopt, NoCPU, t)
	}
	e.tell(now, TaskNew, t, s)
	return t, nil
}

// home deals the enclave's cores out to slots in turn.
func (e *Enclave) home() CPU {
	if e.nextHome = e.cpus.Next(e.nextHome + 1); e.nextHome == NoCPU {
		e.nextHome = e.cpus.Next(0)
	}
	return e.nextHome
}

// Wakeup makes a blocked task runnable.
func (e *Enclave) Wakeup(now Time, t Task) error { return e.WakeupSince(now, now, t) }

// WakeupSince is Wakeup for a task whose owner says since when its work waits. That is
// what policies are told; a policy is not held to be broken for it.
func (e *Enclave) WakeupSince(now, since Time, t Task) error {
	s, err := e.expect(t, blocked)
	if err != nil {
		return err
	}
	s.state, s.since = runnable, now
	e.tell(since, TaskWakeup, t, s)
	return nil
}

// Hint changes what policies are told about a task. A blocked one's new hints
// come with its next message.
func (e *Enclave) Hint(now Time, t Task, h Hints) error {
	s, err := e.expect(t, absent)
	if err != nil || s.hints == h {
		return err
	}
	s.hints = h
	if s.state != blocked {
		e.tell(now, TaskPriorityChanged, t, s)
	}
	return nil
}

// Block takes a task that cannot go on off its core, or out of those that wait
// for one: on a stock kernel a thread may have run although no policy let it.
func (e *Enclave) Block(now Time, t Task) error {
	s, err := e.expect(t, absent)
	if err != nil {
		return err
	}
	if s.state != runnable {
		return e.leaveCPU(now, t, blocked, TaskBlocked)
	}
	s.waited = e.waited(now, s)
	s.state, s.since = blocked, now
	e.tell(now, TaskBlocked, t, s)
	return nil
}

// Yield takes a task that gives way off its core.
func (e *Enclave) Yield(now Time, t Task) error { return e.leaveCPU(now, t, runnable, TaskYield) }

// Preempt takes a task off its core because something else than the policy did
// so.
func (e *Enclave) Preempt(now Time, t Task) error { return e.leaveCPU(now, t, runnable, TaskPreempt) }

func (e *Enclave) leaveCPU(now Time, t Task, to state, typ MessageType) error {
	s, err := e.expect(t, onCPU)
	if err != nil {
		return err
	}
	e.off(now, t, s, to)
	e.tell(now, typ, t, s)
	return nil
}

// Die ends a task, in whatever state it is.
func (e *Enclave) Die(now Time, t Task) error { return e.leave(now, t, TaskDead) }

// Depart takes a task out of the enclave.
func (e *Enclave) Depart(now Time, t Task) error { return e.leave(now, t, TaskDeparted) }

func (e *Enclave) leave(now Time, t Task, typ MessageType) error {
	s, err := e.expect(t, absent)
	if err != nil {
		return err
	}
	if s.state == onCPU {
		e.off(now, t, s, runnable)
	}
	s.state = blocked
	e.tell(now, typ, t, s)
	if typ == TaskDeparted && e.attached {
		e.m.act(Release, NoCPU, t)
	}
	e.forget(t, s)
	return nil
}

func (e *Enclave) forget(t Task, s *taskState) {
	s.state, s.enclave = absent, nil
	e.members--
	e.show(0, t, s)
	e.free = append(e.free, t)
}

// SetAffinity restricts a task to cores, of which the enclave has at least one.
// A task that is elsewhere loses its core first. Its home is one of them from
// then on.
func (e *Enclave) SetAffinity(now Time, t Task, allowed CPUSet) error {
	s, err := e.expect(t, absent)
	if err != nil {
		return err
	}
	common := false
	for i := range allowed {
		common = common || allowed[i]&e.cpus[i] != 0
	}
	if !common {
		return fmt.Errorf("%w: none of %v is in the enclave", ErrCPU, allowed)
	}
	s.allowed, s.pinned = allowed, true
	if s.state == onCPU && !allowed.Has(s.cpu) {
		e.takeOff(now, s.cpu)
	}
	for !allowed.Has(s.home) {
		s.home = e.home()
	}
	e.tell(now, TaskAffinityChanged, t, s)
	return nil
}

// Tick tells the agent of core c that its timer has fired.
func (e *Enclave) Tick(now Time, c CPU) error {
	if !e.cpus.Has(c) {
		return fmt.Errorf("%w: %d is not in the enclave", ErrCPU, c)
	}
	e.tellCPU(now, CPUTick, c)
	return nil
}

// expect returns t's state if it is want, or any if want is absent.
func (e *Enclave) expect(t Task, want state) (*taskState, error) {
	s := e.m.task(t)
	if s == nil || s.enclave != e {
		return nil, fmt.Errorf("%w: %d", ErrTask, t)
	}
	if want != absent && s.state != want {
		return nil, fmt.Errorf("%w: task %d is %v, not %v", ErrState, t, s.state, want)
	}
	return s, nil
}

func (s state) String() string { return [...]string{"absent", "blocked", "runnable", "on a core"}[s] }

// off takes t off its core without a message.
func (e *Enclave) off(now Time, t Task, s *taskState, to state) {
	s.runtime = s.total(now)
	s.state, s.since = to, now
	e.m.cpus[s.cpu].running = NoTask
	e.m.act(Stop, s.cpu, t)
}

// takeOff preempts what runs on core c, if anything does.
func (e *Enclave) takeOff(now Time, c CPU) {
	t := e.m.cpus[c].running
	if t == NoTask {
		return
	}
	s := &e.m.tasks[t]
	e.off(now, t, s, runnable)
	e.tell(now, TaskPreempt, t, s)
}

func (e *Enclave) message(now Time, typ MessageType, t Task, s *taskState) Message {
	return Message{
		Type: typ, Runnable: s.state >= runnable, OnCPU: s.state == onCPU, Task: t, Seq: s.seq,
		CPU: s.cpu, Home: s.home, Runtime: s.total(now), At: now, Hints: s.hints,
	}
}

// tell posts a message about t. Its sequence number rises also when nobody
// listens.
func (e *Enclave) tell(now Time, typ MessageType, t Task, s *taskState) {
	s.seq = s.seq.next()
	e.show(now, t, s)
	if !e.attached {
		return
	}
	m := e.message(now, typ, t, s)
	e.queue(s.home).post(&m)
	e.counts.Messages++
}

func (e *Enclave) tellCPU(now Time, typ MessageType, c CPU) {
	if !e.attached {
		return
	}
	e.queue(c).post(&Message{Type: typ, CPU: c, Home: c, At: now})
	e.counts.Messages++
}

// queue returns the queue of the agent of core c.
func (e *Enclave) queue(c CPU) *queue {
	if !e.perCPU {
		return &e.queues[0]
	}
	return &e.queues[c]
}

// Receive fills buf with the next messages for the agent of core c, or for the
// one of all if there is only one, and returns how many. ErrOverflow: some were
// lost; Rescan.
func (e *Enclave) Receive(c CPU, buf []Message) (int, error) {
	if !e.attached || e.perCPU && !e.cpus.Has(c) {
		return 0, fmt.Errorf("%w: no agent of core %d", ErrCPU, c)
	}
	return e.queue(c).receive(buf)
}

// Waiting tells whether Receive has something to say to the agent of core c.
func (e *Enclave) Waiting(c CPU) bool {
	if !e.attached || e.perCPU && !e.cpus.Has(c) {
		return false
	}
	q := e.queue(c)
	return q.overflow || q.head != q.tail
}

// Rescan empties all queues and returns, appended to buf, a message of type
// TaskNew for each task as it stands, with the sequence number of the last
// message about it, and CPUBusy for each core that cannot be used.
func (e *Enclave) Rescan(now Time, buf []Message) []Message {
	if !e.attached {
		return buf
	}
	e.counts.Rescans++
	for i := range e.queues {
		e.queues[i].reset()
	}
	e.each(func(t Task, s *taskState) {
		m := e.message(now, TaskNew, t, s)
		if s.state == runnable {
			m.At = s.since
		}
		m.Agent = e.queue(s.home).seq
		buf = append(buf, m)
	})
	for c := e.cpus.Next(0); c != NoCPU; c = e.cpus.Next(c + 1) {
		if !e.m.cpus[c].usable() {
			buf = append(buf, Message{Type: CPUBusy, CPU: c, Home: c, At: now, Agent: e.queue(c).seq})
		}
	}
	return buf
}

// AgentSeq returns the sequence number of the last message posted for the agent
// of core c.
func (e *Enclave) AgentSeq(c CPU) Seq {
	if !e.attached || e.perCPU && !e.cpus.Has(c) {
		return 0
	}
	return e.queue(c).seq
}
