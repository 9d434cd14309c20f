package live

import (
	"errors"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// stirUp has the watchdog look at once whether there is somebody to guard.
func (a *Actuator) stirUp() {
	select {
	case a.stir <- struct{}{}:
	default:
	}
}

// carryOut does to threads what the machine wants. A thread that others have
// changed meanwhile is looked at first.
// +checklocks:a.mu
func (a *Actuator) carryOut() {
	for actions := a.machine.Actions(); len(actions) > 0; actions = a.machine.Actions() {
		changed := a.changed[:0]
		for _, x := range actions {
			if k := a.instances.kthreads[x.Task]; k != nil {
				a.carryKthread(k, x)
				continue
			}
			m := a.members[x.Task]
			if m == nil {
				continue // it has ended
			}
			if x.Kind == cs.Run {
				m.enclave.handoffs++
			}
			if m.adopted && x.Kind != cs.Release && m.differs() {
				changed = append(changed, m)
				continue
			}
			a.carry(m, x)
			a.pushed.note(m, x)
		}
		a.clearCores()
		a.changed = changed
		for _, m := range changed {
			a.heedOutside(m)
		}
	}
	a.publish()
}

// +checklocks:a.mu
func (a *Actuator) carry(m *member, x cs.Action) {
	var err error
	switch x.Kind {
	case cs.Adopt:
		m.adopted = true
		err = m.park()
	case cs.Stop:
		err = m.park()
	case cs.Run:
		err = m.run(x.CPU)
	case cs.Release:
		m.adopted = false
		err = m.restore(m.tid)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		a.opts.Logger.Warn("thread cannot be scheduled", "thread", m.tid, "name", m.comm, "error", err)
	}
}

func (n *enclave) wake() {
	if n.driver != nil {
		n.driver.Wake()
	}
}
