package live

import (
	"errors"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// A thread that computes goes on after it was made SCHED_IDLE, though an ordinary one
// waits for its core: within one class the kernel does not look before the next tick
// (1 to 4 ms). On 6.18 none of these has it look sooner: another nice value for a
// moment, a shorter slice of either (sched_runtime), moving the one that is to run to
// another core and back, interrupting the core, having a third one run there. A moment
// of SCHED_FIFO helps mostly, but nothing is ever real-time here. What always helps is to
// move the one that computes off the core: for that the kernel stops it at once.

// pushed is who has computed on a core when it was taken from it, and which cores
// have others now.
type pushed struct {
	members []pushedOff
	taken   cs.CPUSet
}

type pushedOff struct {
	m   *member
	cpu cs.CPU
}

// note is for each action that is carried out.
func (p *pushed) note(m *member, x cs.Action) {
	switch {
	case x.Kind == cs.Run:
		p.taken.Add(x.CPU)
	case x.Kind == cs.Stop && m.awake:
		p.members = append(p.members, pushedOff{m, x.CPU})
	}
}

// settle calls f with those that would go on computing on a core that another one has
// now, and forgets all.
func (p *pushed) settle(f func(m *member, c cs.CPU)) {
	for _, o := range p.members {
		if p.taken.Has(o.cpu) && o.m.adopted && o.m.class == unix.SCHED_IDLE { // it has not got another core
			f(o.m, o.cpu)
		}
	}
	clear(p.members)
	*p = pushed{members: p.members[:0]}
}

// clearCores moves those that were pushed off out of the way of the others.
// +checklocks:a.mu
func (a *Actuator) clearCores() {
	a.pushed.settle(func(m *member, c cs.CPU) {
		if err := m.leave(c); err != nil && !errors.Is(err, unix.ESRCH) {
			a.opts.Logger.Warn("thread cannot be moved off a core", "thread", m.tid, "name", m.comm, "error", err)
		}
	})
}

// leave moves a member that is parked off a core, if there is another for it, and
// lets it come back.
func (m *member) leave(c cs.CPU) error {
	away := m.cores
	if away.Remove(c); away.Empty() {
		away = m.cpus // it may have been on these before
		away.Remove(c)
	}
	if away.Empty() {
		return nil
	}
	set := toLinux(&away)
	err := unix.SchedSetaffinity(m.tid, &set)
	if errors.Is(err, unix.EINVAL) { // its cpuset has no other one
		return nil
	}
	set = toLinux(&m.cores)
	return errors.Join(err, unix.SchedSetaffinity(m.tid, &set))
}
