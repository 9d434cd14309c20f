package sim

import (
	"fmt"

	cs "junction/coresched"
)

// arrive brings instance i a request.
func (w *world) arrive(i int) error {
	in := &w.instances[i]
	r := request{in.next, w.now}
	w.trace.arrive(w.now, i, r.job)
	w.plan(i)
	if in.Kthreads == 0 {
		return w.own(i, r)
	}
	in.waiting = append(in.waiting, r)
	if t, ok := in.unpark(); ok {
		return w.enclave.Wakeup(w.now, t)
	}
	return nil
}

func (in *instance) unpark() (cs.Task, bool) {
	n := len(in.parked)
	if n == 0 {
		return cs.NoTask, false
	}
	t := in.parked[n-1]
	in.parked = in.parked[:n-1]
	return t, true
}

// shift returns the request that waits longest.
func (in *instance) shift() (request, bool) {
	if in.head == len(in.waiting) {
		in.waiting, in.head = in.waiting[:0], 0
		return request{}, false
	}
	r := in.waiting[in.head]
	if in.head++; in.head > 1024 && in.head > len(in.waiting)/2 {
		in.waiting = append(in.waiting[:0], in.waiting[in.head:]...)
		in.head = 0
	}
	return r, true
}

// own gives r to a thread of its own, one that is parked or a new one.
func (w *world) own(i int, r request) error {
	in := &w.instances[i]
	t, ok := in.unpark()
	if !ok {
		var err error
		if t, err = w.enter(i, false); err != nil {
			return fmt.Errorf("%w: requests come faster than this policy, at these costs, serves them: %w", ErrConfig, err)
		}
	}
	w.load(t, r)
	h := in.Hints
	if r.job.Within > 0 {
		h.Deadline = r.arrived + r.job.Within
	}
	if in.program != nil {
		var err error
		if h, err = in.program.tell(w.tasks[t].thread, &r, in.Hints, w.now); err != nil {
			return err
		}
	}
	if err := w.enclave.Hint(w.now, t, h); err != nil {
		return err
	}
	return w.enclave.Wakeup(w.now, t)
}

func (w *world) load(t cs.Task, r request) {
	s := &w.tasks[t]
	s.job, s.arrived, s.left, s.busy = r.job, r.arrived, r.job.Service, true
}

// execute lets t go on, or begin, on core c at w.now + delay.
func (w *world) execute(c int, t cs.Task, delay cs.Time) {
	k := &w.cores[c]
	k.task, k.starts = t, w.now+delay
	k.gen++
	s := &w.tasks[t]
	if s.endless {
		return
	}
	if !s.busy {
		in := &w.instances[s.instance]
		if r, ok := in.shift(); ok {
			w.load(t, r)
		}
		// Without a request (another kthread took it) it parks at once.
	}
	w.agenda.put(k.starts+s.left, finish, c, k.gen)
}

// settle counts what the task on core c has executed up to now.
func (w *world) settle(c int) {
	k := &w.cores[c]
	if k.task == cs.NoTask || w.now <= k.starts {
		return
	}
	s := &w.tasks[k.task]
	d := w.now - k.starts
	s.left -= d
	k.starts = w.now
	w.executed += d
	w.instances[s.instance].runtime += d
}

// finish ends the request of the task on core c.
func (w *world) finish(c int) error {
	w.settle(c)
	k := &w.cores[c]
	t := k.task
	s := &w.tasks[t]
	in := &w.instances[s.instance]
	if s.busy {
		w.complete(t, s)
	}
	if in.Kthreads > 0 {
		if r, ok := in.shift(); ok {
			w.load(t, r)
			w.execute(c, t, 0)
			return nil
		}
	}
	in.parked = append(in.parked, t)
	err := w.enclave.Block(w.now, t)
	w.carryOut(false)
	return err
}

func (w *world) complete(t cs.Task, s *task) {
	s.busy = false
	w.trace.done(w.now, t, w.now-s.arrived)
	if s.job.Within > 0 && w.now > s.arrived+s.job.Within {
		w.missed++
	}
	if w.ended++; w.ended <= w.c.Warmup {
		return
	}
	w.counted++
	h := &w.short
	if s.job.Long {
		h = &w.long
	}
	h.Add(w.now - s.arrived)
}

// carryOut does what the machine wants done. by says that a policy does it.
func (w *world) carryOut(byPolicy bool) {
	for _, a := range w.machine.Actions() {
		switch a.Kind {
		case cs.Stop:
			w.stop(int(a.CPU), byPolicy)
		case cs.Run:
			w.start(int(a.CPU), a.Task)
		}
	}
}

func (w *world) stop(c int, pushed bool) {
	w.settle(c)
	k := &w.cores[c]
	k.task = cs.NoTask
	k.gen++
	k.stopped, k.pushed = w.now, pushed
}

func (w *world) start(c int, t cs.Task) {
	k := &w.cores[c]
	delay := w.c.Cost.Switch
	switch {
	case w.traits.PerCPU:
		delay = w.c.Cost.LocalSwitch
	case k.pushed && k.stopped == w.now:
		delay = w.c.Cost.Push
	}
	k.pushed = false
	w.switching += delay
	w.execute(c, t, delay)
}

// Agents.

// core returns the core of agent a, as the enclave calls it.
func (w *world) coreOf(a int) cs.CPU {
	if !w.traits.PerCPU {
		return cs.NoCPU
	}
	return cs.CPU(a)
}

// rouse starts a round of each agent that has messages and is at rest.
func (w *world) rouse() {
	for a := range w.agents {
		if s := &w.agents[a]; !s.active && w.enclave.Waiting(w.coreOf(a)) {
			s.active = true
			w.agenda.put(w.now+w.c.Cost.Wake, begin, a, 0)
		}
	}
}

// begin reads what there is and decides.
func (w *world) begin(a int) {
	c, s := w.coreOf(a), &w.agents[a]
	s.timer++ // a timer of an earlier round is superseded
	n := 0
	for w.enclave.Waiting(c) {
		k, err := w.enclave.Receive(c, w.buf)
		if err != nil {
			w.agent.Rescan(w.now, w.enclave)
			n += w.enclave.Tasks()
			break
		}
		for i := range w.buf[:k] {
			w.trace.message(w.now, &w.buf[i])
			w.agent.Deliver(&w.buf[i])
		}
		n += k
	}
	w.agent.Decide(c, w.now, &s.batch)
	d := w.c.Cost.round(w.traits.PerCPU, w.traits.Group, n, len(s.batch.Txns()))
	w.worked += d
	s.until = w.now + d
	if w.traits.PerCPU {
		w.delay(a, d)
	}
	w.agenda.put(w.now+d, commit, a, 0)
}

// delay takes d from the task on core c, for the agent there.
func (w *world) delay(c int, d cs.Time) {
	k := &w.cores[c]
	if k.task == cs.NoTask || d == 0 {
		return
	}
	w.settle(c)
	k.starts = max(k.starts, w.now) + d
	k.gen++
	if s := &w.tasks[k.task]; !s.endless {
		w.agenda.put(k.starts+s.left, finish, c, k.gen)
	}
}

// commit ends a round.
func (w *world) commit(a int) {
	s := &w.agents[a]
	w.agent.Commit(w.enclave, w.now, w.coreOf(a), &s.batch)
	w.carryOut(true)
	for i := range s.batch.Txns() {
		w.trace.txn(w.now, &s.batch.Txns()[i])
	}
	w.agent.Settle(w.now, &s.batch)
	if w.enclave.Waiting(w.coreOf(a)) {
		w.agenda.put(w.now, begin, a, 0) // it is awake
		return
	}
	s.active = false
	if len(s.batch.Txns()) > 0 {
		// Whether a slice has to be watched shows only now.
		w.agenda.put(w.now, timer, a, s.timer)
		return
	}
	if at, set := s.batch.Timer(); set {
		w.agenda.put(max(at, w.now), timer, a, s.timer)
	}
}
