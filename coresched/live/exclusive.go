package live

import (
	"errors"
	"fmt"
)

// An exclusive enclave's cores are its own from Keep to Destroy, but for the time
// between the loss of a policy and the next one: threads of an enclave without a
// policy are to be as they were, with all cores, and so then are all others.

// Keep keeps the cores of an enclave for its threads alone. Those of the kernel
// itself stay, and are counted in its status. Threads of it that are in other cpusets
// leave it.
func (a *Actuator) Keep(name string) error {
	a.mu.Lock()
	n := a.enclaves[name]
	var err error
	switch {
	case n == nil || a.closed:
		err = fmt.Errorf("%w: %q", ErrEnclave, name)
	case a.keeper == nil:
		a.keeper, err = newKeeper(a.opts.Cpusets)
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	defer a.save()
	return a.hold(n)
}

// hold keeps an enclave's cores, and moves its threads there.
func (a *Actuator) hold(n *enclave) error {
	a.orders.Lock()
	defer a.orders.Unlock()
	a.mu.Lock()
	err := a.needGuard()
	if err != nil || n.held || a.enclaves[n.name] != n {
		a.mu.Unlock()
		return err
	}
	cpus := n.e.CPUs()
	err = a.guard.tell(&note{Keep: a.keeper.folder("")})
	a.keeping++
	a.stirUp()
	a.mu.Unlock()
	if err == nil {
		n.staying, err = a.keeper.keep(cpus)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil && a.enclaves[n.name] != n {
		err = errors.Join(fmt.Errorf("%w: %q was destroyed meanwhile", ErrEnclave, n.name), a.keeper.give(&cpus))
	}
	if err != nil {
		a.keepsLess()
		return err
	}
	n.exclusive, n.held = true, true
	return a.gather(n)
}

// keepsLess tells the guard when there is nothing left to give.
// +checklocks:a.mu
func (a *Actuator) keepsLess() {
	if a.keeping--; a.keeping > 0 {
		return
	}
	if err := a.guard.tell(&note{Unkeep: true}); err != nil {
		a.opts.Logger.Warn("the guard does not hear", "error", err)
	}
}

// gather moves all of an enclave's threads to its cores. Those that are in other
// cpusets by now leave it.
// +checklocks:a.mu
func (a *Actuator) gather(n *enclave) error {
	cpus := n.e.CPUs()
	var errs []error
	for tid, m := range a.threads {
		if m.enclave != n {
			continue
		}
		err := a.keeper.put(tid, &cpus)
		if errors.Is(err, ErrRefused) {
			a.letGo(m, err.Error())
			continue
		}
		errs = append(errs, err)
	}
	for i := range a.instances.all {
		if i.enclave != n {
			continue
		}
		if err := a.keeper.put(i.PID, &cpus); errors.Is(err, ErrRefused) {
			a.opts.Logger.Warn("instance leaves its enclave", "instance", i.Name, "reason", err)
			a.leave(i)
			continue
		}
		errs = append(errs, a.collect(i))
	}
	a.carryOut()
	return errors.Join(errs...)
}

// loosen lets everybody use an enclave's cores, at once. Tasks are moved back
// meanwhile.
// +checklocks:a.mu
func (a *Actuator) loosen(n *enclave) {
	if !n.held {
		return
	}
	n.held = false
	cpus := n.e.CPUs()
	if err := a.keeper.open(&cpus); err != nil {
		a.opts.Logger.Warn("exclusive cores cannot be given back", "enclave", n.name, "error", err)
	}
	a.helpers.Go(func() {
		err := a.keeper.giveLoose(&cpus)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.keepsLess()
		if err != nil {
			a.opts.Logger.Warn("exclusive cores cannot be given back", "enclave", n.name, "error", err)
		}
	})
}

// giveCores ends the keeping of the cores of an enclave that has been destroyed.
func (a *Actuator) giveCores(n *enclave) error {
	a.mu.Lock()
	held := n.held
	n.held = false
	a.mu.Unlock()
	if !held {
		return nil
	}
	cpus := n.e.CPUs()
	err := a.keeper.give(&cpus)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keepsLess()
	return err
}

// admit reads how a thread is scheduled that is to enter an enclave, and moves it
// to cores that are kept.
// +checklocks:a.mu
func (a *Actuator) admit(n *enclave, tid int) (o original, err error) {
	if a.keeping == 0 && !n.exclusive {
		return readOriginal(tid)
	}
	err = a.keeper.unconfined(tid, n.exclusive, func() (err error) {
		o, err = readOriginal(tid)
		return err
	})
	if err == nil && n.held {
		cpus := n.e.CPUs()
		err = a.keeper.put(tid, &cpus)
	}
	return o, err
}

// dismiss moves a thread that leaves an enclave off cores that are kept.
// +checklocks:a.mu
func (a *Actuator) dismiss(tid int) error {
	if a.keeping == 0 {
		return nil
	}
	return a.keeper.aside(tid)
}

// collect moves an instance's threads to cores that are kept. Those of its children
// that are in other cpusets stay there.
// +checklocks:a.mu
func (a *Actuator) collect(i *inst) error {
	if !i.enclave.held {
		return nil
	}
	cpus := i.enclave.e.CPUs()
	return eachThread(i.PID, i.started, func(tid int) error {
		err := a.keeper.put(tid, &cpus)
		if errors.Is(err, ErrRefused) {
			a.opts.Logger.Warn("thread stays off exclusive cores", "instance", i.Name, "reason", err)
			return nil
		}
		return err
	})
}

// scatter moves them off.
// +checklocks:a.mu
func (a *Actuator) scatter(i *inst) error {
	if !i.enclave.held {
		return nil
	}
	return eachThread(i.PID, i.started, a.dismiss)
}

// tidy moves tasks off that were made beside all those that were moved.
func (a *Actuator) tidy() {
	a.mu.Lock()
	k, keeping := a.keeper, a.keeping > 0
	a.mu.Unlock()
	if !keeping {
		return
	}
	if err := k.tidy(); err != nil {
		a.opts.Logger.Warn("tasks stay on exclusive cores", "error", err)
	}
}

// keptStatus is how an enclave's cores are kept.
func (n *enclave) keptStatus() (k KeptStatus) {
	return KeptStatus{Exclusive: n.exclusive, Held: n.held, KernelThreads: n.staying}
}

// KeptStatus tells of an enclave whose cores are kept for it alone.
type KeptStatus struct {
	Exclusive bool `json:"exclusive"`
	// Held is false while its policy is lost and there is no other.
	Held          bool `json:"cores_held"`
	KernelThreads int  `json:"kernel_threads_left,omitempty"` // that could not be moved
}
