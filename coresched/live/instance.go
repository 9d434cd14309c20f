package live

import (
	"errors"
	"fmt"
	"time"

	cs "junction/coresched"
	"junction/coresched/excess"
	"junction/coresched/instance"
)

// An instance's kthreads are tasks of an enclave like threads, but no thread is
// bound to one. The instance says on its page how many it could use: so many are
// runnable, the others are blocked. As many as have cores it is granted, and has
// that many threads execute at once. So it gives a core up by itself; what the
// kernel is told is what has to hold before that, and against one that does not
// comply:
//
//   - Best effort lies in a CPU cgroup that is idle, or else is SCHED_IDLE
//     (idlegroup.go): on a core that a latency-critical instance also uses, the
//     kernel lets that one in when it wakes, before any policy knows. What the latter
//     leaves of its cores is lent to best effort.
//   - A latency-critical instance may begin with the kthreads that it is guaranteed,
//     and with one in any case, before it has cores: the policy hears of it meanwhile.
//     One that is guaranteed none and then gets no core is SCHED_IDLE until it does,
//     unless it executes for moments only (denial.go).
//   - Who keeps more threads executing than it was granted, for longer than
//     yieldTime, is bound to the cores that it has, or is SCHED_IDLE, but never to
//     less than it is guaranteed.
//   - One that says that it wants nothing, or has complied, and goes on is found out by
//     the CPU time that it uses (audit.go).

// yieldTime is how long an instance has to comply with a grant, and how long one
// without a core is let run as if it had one.
const yieldTime = 5 * time.Millisecond

// An instance that rings more often than maxRings in ringPeriod waits for the next.
const (
	maxRings   = 1000
	ringPeriod = 100 * time.Millisecond
)

// InstanceOptions is what an instance wants of the scheduler.
type InstanceOptions struct {
	Name string
	// PID is that of its process, whose threads and children it consists of.
	PID int
	// Kthreads is how many it has at most, at least 1. Spinning of them always
	// want a core; Guaranteed have one whenever they want.
	Kthreads, Spinning, Guaranteed int
	Class                          cs.Class
	// Delay is how long a thread may wait for a kthread before the instance
	// counts as congested; 0: what the policy has.
	Delay time.Duration
}

func (o *InstanceOptions) check(cores int) error {
	switch {
	case o.Kthreads < 1:
		return fmt.Errorf("%w: %d kthreads", ErrRefused, o.Kthreads)
	case o.Guaranteed < 0 || o.Guaranteed > min(o.Kthreads, cores):
		return fmt.Errorf("%w: %d guaranteed of %d kthreads on %d cores", ErrRefused, o.Guaranteed, o.Kthreads, cores)
	case o.Spinning < 0 || o.Spinning > o.Kthreads:
		return fmt.Errorf("%w: %d spinning of %d kthreads", ErrRefused, o.Spinning, o.Kthreads)
	case o.Delay < 0 || o.Class > cs.BestEffort:
		return fmt.Errorf("%w: delay %v, %v", ErrRefused, o.Delay, o.Class)
	}
	return nil
}

// inst is an instance in an enclave.
type inst struct {
	InstanceOptions
	enclave *enclave
	giver   *instance.Giver
	started uint64 // of its process
	original
	kthreads []*kthread
	want     int
	granted  int // what it was told last
	had      int // cores, then
	adopted  bool
	shortage shortage
	denied   bool // without a core for too long
	forced   bool // did not comply in time
	touched  bool // its grant may have changed
	left     bool
	host     hostSched // how its threads are scheduled now
	group    string    // its CPU cgroup, or ""
	timer    *time.Timer
	// counts
	grants, forces, denials, excesses uint64

	account    excess.Account
	audited    bool    // it began
	judged     cs.Time // when it was last looked at
	excess     string  // held for it: what it did
	meter      meter
	meterRound uint64
}

// kthread is a task.
type kthread struct {
	inst  *inst
	task  cs.Task
	cpu   cs.CPU // NoCPU: it has none
	awake bool   // not blocked
}

// instances is the part of an Actuator, and of its lock, that is about them.
type instances struct {
	all      map[*inst]struct{}
	kthreads map[cs.Task]*kthread
	touched  []*inst
	audits   audits
}

// Join makes an instance's kthreads tasks of an enclave. The giver is the
// Actuator's from then on, unless it fails; the instance leaves when it closes
// its doorbell.
func (a *Actuator) Join(name string, g *instance.Giver, o InstanceOptions) error {
	defer a.save()
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves[name]
	if n == nil || a.closed {
		return fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	cpus := n.e.CPUs()
	if err := o.check(cpus.Len()); err != nil {
		return fmt.Errorf("instance %q: %w", o.Name, err)
	}
	if err := a.acceptable(n, &o); err != nil {
		return err
	}
	if err := a.needGuard(); err != nil {
		return err
	}
	s, err := readStat(o.PID)
	if err != nil {
		return err
	}
	i := &inst{InstanceOptions: o, enclave: n, giver: g, started: s.started, granted: o.Kthreads}
	if i.original, err = a.admit(n, o.PID); err != nil {
		return err
	}
	i.host = hostSched{class: i.original.policy, cores: i.mask()}
	if err := a.take(i, min(o.Kthreads, cpus.Len())); err != nil {
		return errors.Join(err, a.scatter(i))
	}
	a.instances.all[i] = struct{}{}
	a.regroup(i)
	delete(a.awaited, o.PID)
	a.stirUp()
	i.timer = time.AfterFunc(time.Hour, func() { a.enforce(i) })
	i.timer.Stop()
	a.heedInstance(i)
	a.carryOut()
	n.wake()
	a.helpers.Go(func() { a.follow(i) })
	return nil
}

// take has the guard, the kernel and the machine know of an instance.
// +checklocks:a.mu
func (a *Actuator) take(i *inst, kthreads int) error {
	if err := a.guard.takeProcess(i.PID, i.started, &i.original); err != nil {
		return fmt.Errorf("%w: the guard does not hear: %w", ErrRefused, err)
	}
	err := a.collect(i)
	if err == nil {
		err = a.enterKthreads(i, kthreads)
	}
	if err != nil {
		i.left = true // before it was ever granted anything
		a.dropKthreads(i)
		return errors.Join(err, a.guard.tell(&note{Give: i.PID}))
	}
	return nil
}

// acceptable refuses what is in an enclave already, and more guaranteed cores
// than there are.
// +checklocks:a.mu
func (a *Actuator) acceptable(n *enclave, o *InstanceOptions) error {
	if a.own(o.PID) {
		return fmt.Errorf("%w: %d is needed to schedule", ErrRefused, o.PID)
	}
	for _, m := range a.threads {
		if m.tgid == o.PID {
			return fmt.Errorf("%w: thread %d of instance %q is in enclave %q", ErrRefused, m.tid, o.Name, m.enclave.name)
		}
	}
	cpus, promised := n.e.CPUs(), o.Guaranteed
	for i := range a.instances.all {
		if i.PID == o.PID {
			return fmt.Errorf("%w: instance %q is in enclave %q", ErrRefused, o.Name, i.enclave.name)
		}
		if i.enclave == n {
			promised += i.Guaranteed
		}
	}
	if promised > cpus.Len() {
		return fmt.Errorf("%w: enclave %q has %d cores, and %d would be guaranteed to instances", ErrRefused, n.name, cpus.Len(), promised)
	}
	return nil
}

// instanceOf returns the instance in an enclave whose process pid is, or nil.
// +checklocks:a.mu
func (a *Actuator) instanceOf(pid int) *inst {
	for i := range a.instances.all {
		if i.PID == pid {
			return i
		}
	}
	return nil
}

// +checklocks:a.mu
func (a *Actuator) enterKthreads(i *inst, number int) error {
	h := cs.Hints{Group: uint32(i.PID), Guaranteed: uint16(i.Guaranteed), Class: i.Class, Nice: int8(i.nice), Delay: i.Delay}
	for range number {
		task, err := i.enclave.e.Enter(clock(), false, h)
		if err != nil {
			return err
		}
		k := &kthread{inst: i, task: task, cpu: cs.NoCPU}
		i.kthreads = append(i.kthreads, k)
		a.instances.kthreads[task] = k
	}
	return nil
}

// dropKthreads ends an instance's tasks.
// +checklocks:a.mu
func (a *Actuator) dropKthreads(i *inst) {
	for _, k := range i.kthreads {
		a.place(k, cs.NoCPU)
		_ = i.enclave.e.Die(clock(), k.task) // it is in the enclave
		a.carryOut()
		delete(a.instances.kthreads, k.task)
	}
	i.kthreads = nil
}

// follow hears an instance until it goes.
func (a *Actuator) follow(i *inst) {
	rings, period := 0, time.Now()
	for {
		err := i.giver.Wait()
		a.mu.Lock()
		if err != nil || i.left {
			a.leave(i)
			a.mu.Unlock()
			a.endGroup(i)
			if err := i.giver.Close(); err != nil {
				a.opts.Logger.Warn("close an instance's page", "instance", i.Name, "error", err)
			}
			return
		}
		a.heedInstance(i)
		a.carryOut()
		i.enclave.wake()
		a.mu.Unlock()
		if rings++; rings < maxRings {
			continue
		}
		if rest := ringPeriod - time.Since(period); rest > 0 {
			select {
			case <-time.After(rest):
			case <-a.done:
			}
		}
		rings, period = 0, time.Now()
	}
}

// leave ends an instance's membership. follow closes its page.
// +checklocks:a.mu
func (a *Actuator) leave(i *inst) {
	if _, ok := a.instances.all[i]; !ok {
		return
	}
	i.left, a.changes = true, true
	i.timer.Stop()
	i.wants(0)
	a.dropKthreads(i)
	delete(a.instances.all, i)
	i.adopted = false
	a.applyHost(i)
	if err := a.scatter(i); err != nil {
		a.opts.Logger.Warn("instance stays on exclusive cores", "instance", i.Name, "error", err)
	}
	if err := a.guard.tell(&note{Give: i.PID}); err != nil {
		a.opts.Logger.Warn("the guard does not hear", "error", err)
	}
	i.enclave.wake()
	i.giver.Silence()
}
