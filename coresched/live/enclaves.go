package live

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	cs "junction/coresched"
	"junction/coresched/plugin"
)

func notInNames(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == utf8.RuneError
}

// Create makes an enclave of cores that belong to none yet. timeout is how long
// a thread may wait for a core before the policy is held to be broken; 0: for
// ever.
func (a *Actuator) Create(name string, cpus cs.CPUSet, timeout time.Duration) error {
	defer a.save()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return ErrClosed
	case name == "" || len(name) > 64 || strings.ContainsFunc(name, notInNames):
		return fmt.Errorf("%w: %q; take 1 to 64 letters, digits and signs, without spaces", ErrName, name)
	case a.enclaves[name] != nil:
		return fmt.Errorf("%w: %q", ErrExists, name)
	}
	a.heedCores()
	a.carryOut()
	if err := a.mustBeOnline(cpus); err != nil && !a.resuming {
		return err
	}
	page, err := plugin.NewPage()
	if err != nil {
		return err
	}
	e, err := a.machine.NewEnclave(cpus, cs.EnclaveOptions{Board: page, RunnableTimeout: timeout})
	if err != nil {
		return errors.Join(err, page.Close())
	}
	a.enclaves[name] = &enclave{name: name, e: e, page: page, timeout: timeout, online: a.online, borrowers: map[*inst]struct{}{}}
	return nil
}

// Destroy ends an enclave: its threads are as they were before they were pushed.
func (a *Actuator) Destroy(name string) error {
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return a.destroy(name)
}

func (a *Actuator) destroy(name string) error {
	defer a.save()
	n, err := a.strike(name)
	if err != nil {
		return err
	}
	a.endPolicy(n, "enclave destroyed")
	return errors.Join(a.empty(n), a.giveCores(n))
}

// empty lets go of all that is in an enclave.
func (a *Actuator) empty(n *enclave) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.instances.all {
		if i.enclave == n {
			a.leave(i)
		}
	}
	n.e.Destroy(clock())
	a.carryOut()
	for tid, t := range a.threads {
		if t.enclave == n {
			a.forget(tid)
		}
	}
	n.destroyed = true
	return n.closePage()
}

// strike takes an enclave off the list.
func (a *Actuator) strike(name string) (*enclave, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves[name]
	if n == nil {
		return nil, fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	delete(a.enclaves, name)
	return n, nil
}

// forget strikes a thread off the lists.
// +checklocks:a.mu
func (a *Actuator) forget(tid int) {
	t := a.threads[tid]
	a.leaveProgram(t.program)
	t.enclave.left++
	a.changes = true
	a.watch.drop(tid)
	delete(a.threads, tid)
	delete(a.members, t.task)
	a.former[tid] = t.original
	if err := a.guard.tell(&note{Give: tid}); err != nil {
		a.opts.Logger.Warn("the guard does not hear", "error", err)
	}
}
