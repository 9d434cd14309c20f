package live

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// Others may change how a thread is scheduled while it is in an enclave (taskset,
// renice, chrt). The kernel tells nobody, so threads are compared with what we
// made them: before each change that we make, and some at each beat.

// perBeat is how many threads are compared at a beat.
const perBeat = 256

// compare looks at the next threads in turn.
// +checklocks:a.mu
func (a *Actuator) compare() {
	tids := make([]int, 0, len(a.threads))
	for tid, m := range a.threads {
		if m.adopted {
			tids = append(tids, tid)
		}
	}
	slices.Sort(tids)
	from, _ := slices.BinarySearch(tids, a.checked+1)
	for i := range min(perBeat, len(tids)) {
		a.checked = tids[(from+i)%len(tids)]
		switch m := a.threads[a.checked]; {
		case m.ended():
			a.missed(m)
		case m.differs():
			a.heedOutside(m)
		}
	}
	a.carryOut()
}

// ended tells whether there is no such thread any more.
func (m *member) ended() bool {
	_, err := unix.SchedGetAttr(m.tid, 0)
	return errors.Is(err, unix.ESRCH)
}

// missed is for a thread that has ended. That is told, behind what else it did; if
// nothing was on its way at one comparison, and all was heeded at the next, it never
// will be.
// +checklocks:a.mu
func (a *Actuator) missed(m *member) {
	if m.missing {
		_ = m.enclave.e.Die(clock(), m.task)
		a.forget(m.tid)
		m.enclave.wake()
		return
	}
	m.missing = a.watch.reader.AvailableBytes() == 0
}

// differs tells whether a thread is not scheduled as we made it.
func (m *member) differs() bool {
	attr, err := unix.SchedGetAttr(m.tid, 0)
	if err != nil {
		return false // it has ended, which will be told
	}
	cores, err := affinity(m.tid)
	return err == nil && (attr.Policy != m.class || attr.Nice != m.nice || resets(attr) != m.reset || !m.enclave.online.has(cores, m.cores))
}

// heedOutside takes over what others have changed, and makes the thread what it
// is to be at the moment.
// +checklocks:a.mu
func (a *Actuator) heedOutside(m *member) {
	if a.threads[m.tid] != m {
		return // it was let go
	}
	a.heedCores() // the kernel may have been the one
	a.compareThread(m)
	if a.threads[m.tid] != m || !m.adopted {
		return
	}
	x := cs.Action{Kind: cs.Stop}
	if s := m.enclave.e.Status(clock(), m.task); s.OnCPU {
		x = cs.Action{Kind: cs.Run, CPU: s.CPU}
	}
	a.carry(m, x)
}

// +checklocks:a.mu
func (a *Actuator) compareThread(m *member) {
	attr, err := unix.SchedGetAttr(m.tid, 0)
	if err != nil {
		return // it has ended, which will be told
	}
	switch attr.Policy {
	case unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE:
	default:
		a.letGo(m, "it was given another scheduling class")
		return
	}
	if attr.Policy != m.class {
		m.policy = attr.Policy // what it gets back, and counts as
		a.rehint(m)
	}
	if attr.Nice != m.nice || resets(attr) != m.reset {
		m.nice, m.reset = attr.Nice, resets(attr)
		a.rehint(m)
	}
	if cores, ok := m.movedTo(); ok {
		a.confine(m, cores)
	}
}

// movedTo tells whether somebody else changed the cores that a thread may run on,
// and to which. A cpuset that allows fewer than we asked for is no such change:
// it shows again when we ask again.
func (m *member) movedTo() (cores cs.CPUSet, moved bool) {
	cores, err := affinity(m.tid)
	if err != nil || m.enclave.online.has(cores, m.cores) {
		return cores, false
	}
	set := toLinux(&m.cores)
	if err := unix.SchedSetaffinity(m.tid, &set); err != nil {
		return cores, false
	}
	again, err := affinity(m.tid)
	return cores, err == nil && again == m.cores
}

// rehint has the policy, the guard and the end know of m's new originals.
// +checklocks:a.mu
func (a *Actuator) rehint(m *member) {
	a.opts.Logger.Info("thread was changed by others", "thread", m.tid, "name", m.comm, "class", m.policy, "nice", m.nice, "cpus", m.cpus.String())
	a.changes = true
	_ = m.enclave.e.Hint(clock(), m.task, m.hints()) // it is in the enclave
	if err := a.guard.take(m.tid, m.started, &m.original, m.enclave.name); err != nil {
		a.opts.Logger.Warn("the guard does not hear", "error", err)
	}
}

// confine heeds that a thread may run on other cores from now on. The policy is
// told, and what it decided before fails. One that may run on none of the
// enclave's leaves.
// +checklocks:a.mu
func (a *Actuator) confine(m *member, cores cs.CPUSet) {
	m.cpus, m.whole = cores, isWhole(m.tid, &cores)
	a.rehint(m)
	if err := m.enclave.e.SetAffinity(clock(), m.task, cores); err != nil {
		a.letGo(m, "it may run on none of the enclave's cores any more")
		return
	}
	m.enclave.wake()
}

// letGo takes a thread out of its enclave, and leaves it a class that others
// gave it.
// +checklocks:a.mu
func (a *Actuator) letGo(m *member, why string) {
	a.opts.Logger.Warn("thread leaves its enclave", "thread", m.tid, "name", m.comm, "reason", why)
	enclave, task := m.enclave, m.task
	if err := a.dismiss(m.tid); err != nil {
		a.opts.Logger.Warn("thread stays on exclusive cores", "thread", m.tid, "error", err)
	}
	mask := m.mask()
	set := toLinux(&mask)
	if attr, err := unix.SchedGetAttr(m.tid, 0); err == nil && attr.Policy == m.class {
		a.restore(m.tid, &m.original)
	} else if err := unix.SchedSetaffinity(m.tid, &set); err != nil {
		a.opts.Logger.Warn("thread cannot be restored", "thread", m.tid, "error", err)
	}
	a.forget(m.tid) // first: what the machine wants done to it is not done any more
	_ = enclave.e.Depart(clock(), task)
	enclave.wake()
}
