package live

import (
	"errors"
	"fmt"
	"os"
)

// Push brings threads into an enclave. It stops at the first that it cannot take.
func (a *Actuator) Push(name string, tids []int) error {
	defer a.save()
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves[name]
	if n == nil || a.closed {
		return fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	var err error
	for _, tid := range tids {
		if err = a.push(n, tid); err != nil {
			break // those before it are in
		}
	}
	a.carryOut()
	n.wake()
	return err
}

// +checklocks:a.mu
func (a *Actuator) push(n *enclave, tid int) error {
	if tid <= 0 {
		return fmt.Errorf("%w: %d", ErrThread, tid)
	}
	s, err := readStat(tid)
	switch {
	case err != nil:
		return err
	case a.threads[tid] != nil:
		return fmt.Errorf("%w: %d is in enclave %q", ErrRefused, tid, a.threads[tid].enclave.name)
	case s.flags&kernelThread != 0:
		return fmt.Errorf("%w: %d (%s) is the kernel's", ErrRefused, tid, s.comm)
	case a.instanceOf(s.tgid) != nil:
		return fmt.Errorf("%w: %d (%s) is instance %q's, which is in an enclave as a whole", ErrRefused, tid, s.comm, a.instanceOf(s.tgid).Name)
	case a.own(s.tgid):
		return fmt.Errorf("%w: %d (%s) is needed to schedule", ErrRefused, tid, s.comm)
	case s.gone():
		return fmt.Errorf("%w: %d has ended", ErrThread, tid)
	}
	if err := a.needGuard(); err != nil {
		return err
	}
	o, err := a.admit(n, tid)
	if err != nil {
		return err
	}
	if err := a.enter(n, tid, &s, o); err != nil {
		return errors.Join(err, a.dismiss(tid))
	}
	return nil
}

// own tells whether a process is one of ours.
// +checklocks:a.mu
func (a *Actuator) own(pid int) bool {
	if pid == os.Getpid() || pid == a.guard.cmd.Process.Pid {
		return true
	}
	for _, n := range a.enclaves {
		if n.process != nil && n.process.PID() == pid {
			return true
		}
	}
	return false
}

// enter takes a thread. The guard hears of it before anything is changed.
// +checklocks:a.mu
func (a *Actuator) enter(n *enclave, tid int, s *stat, o original) error {
	if err := a.needGuard(); err != nil {
		return err
	}
	if err := a.guard.take(tid, s.started, &o, n.name); err != nil {
		return fmt.Errorf("%w: the guard does not hear: %w", ErrRefused, err)
	}
	if err := a.watch.add(tid); err != nil {
		return errors.Join(fmt.Errorf("watch thread %d: %w", tid, err), a.guard.tell(&note{Give: tid}))
	}
	canRun := true
	if again, err := readStat(tid); err == nil {
		canRun = again.canRun() // what happens from now on is told
	}
	a.watch.tell(tid, !canRun)
	t := &member{
		tid: tid, tgid: s.tgid, started: s.started, comm: s.comm, enclave: n, original: o,
		program: a.programOf(s.tgid), awake: canRun, woke: clock(),
	}
	task, err := n.e.Enter(clock(), canRun, t.hints())
	if err != nil {
		a.watch.drop(tid)
		a.leaveProgram(t.program)
		return errors.Join(err, a.guard.tell(&note{Give: tid}))
	}
	t.task = task
	a.threads[tid], a.members[task] = t, t
	n.entered++
	a.changes = true
	a.stands(t)
	a.stirUp()
	return nil
}
