package live

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"junction/coresched/plugin"
)

// needGuard starts a guard in the place of one that has ended: of one that was
// killed, or that restored all threads because we stood still.
// +checklocks:a.mu
func (a *Actuator) needGuard() error {
	if !a.guard.gone() {
		return nil
	}
	g, err := a.opts.startGuard(a.watch)
	if err != nil {
		return fmt.Errorf("the guard of core scheduling has ended; without one threads might never be restored: %w", err)
	}
	for _, n := range a.enclaves { // the guard has given its cores back, or nobody will
		a.loosen(n)
	}
	for tid, m := range a.threads {
		if err := g.take(tid, m.started, &m.original, m.enclave.name); err != nil {
			return errors.Join(fmt.Errorf("a new guard does not hear: %w", err), g.close())
		}
	}
	for i := range a.instances.all {
		if err := g.takeProcess(i.PID, i.started, &i.original); err != nil {
			return errors.Join(fmt.Errorf("a new guard does not hear: %w", err), g.close())
		}
		if i.group == "" {
			continue
		}
		if err := g.tell(&note{Group: i.group}); err != nil {
			return errors.Join(fmt.Errorf("a new guard does not hear: %w", err), g.close())
		}
	}
	a.guard, a.changes = g, true
	return nil
}

// startGuard starts a guard that knows where the record is.
func (o *Options) startGuard(w *watcher) (*guard, error) {
	g, err := startGuard(exec.Command(o.Guard[0], o.Guard[1:]...), w)
	if err != nil || o.State == "" {
		return g, err
	}
	if err := g.tell(&note{State: o.State}); err != nil {
		return nil, errors.Join(fmt.Errorf("a new guard does not hear: %w", err), g.close())
	}
	return g, nil
}

// SetPolicy puts a policy in charge of an enclave, in the place of the one
// before, if there is one. program is a policy's name, or the path of a program of
// its own. It returns for how long the enclave was without a policy: until the
// new one's first decision, if a thread waited for one. Until a new one serves,
// the one before stays.
func (a *Actuator) SetPolicy(name, program string, args []string) (blackout time.Duration, err error) {
	return a.SetPolicyWithin(name, program, args, plugin.StartTimeout)
}

// SetPolicyWithin is SetPolicy for a program that may take longer, or less long,
// until it serves a policy.
func (a *Actuator) SetPolicyWithin(name, program string, args []string, timeout time.Duration) (blackout time.Duration, err error) {
	n, err := a.beginStart(name)
	if err != nil {
		return 0, err
	}
	defer a.started(n)
	a.mu.Lock()
	lost := n.exclusive && !n.held
	a.mu.Unlock()
	if lost {
		if err := a.hold(n); err != nil {
			return 0, err
		}
	}
	process, err := a.startPolicy(n, program, args, timeout)
	if err != nil {
		return 0, err
	}
	return a.install(n, process, program, args, beginDarkness(time.Time{}))
}

// startPolicy starts a policy's process. It outlives this one if a successor is to
// find it.
func (a *Actuator) startPolicy(n *enclave, program string, args []string, timeout time.Duration) (*plugin.Process, error) {
	said := a.tailOf(n)
	process, err := plugin.Start(a.command(program, args), n.page, said, timeout)
	if err != nil {
		return nil, said.explain(program, err)
	}
	if a.opts.State == "" {
		return process, nil
	}
	if err = process.Survive(orphanTime); err != nil {
		process.Kill()
		return nil, err
	}
	return process, nil
}

// tailOf hears what an enclave's policy writes.
func (a *Actuator) tailOf(n *enclave) *tail {
	return &tail{logger: a.opts.Logger.With("enclave", n.name)}
}

// install puts a process in charge of an enclave, in the place of the one before.
func (a *Actuator) install(n *enclave, process *plugin.Process, program string, args []string, dark darkness) (blackout time.Duration, err error) {
	defer a.save()
	var old formerPolicy
	began := identityOf(process.PID()).Started
	a.mu.Lock()
	if a.enclaves[n.name] != n {
		a.mu.Unlock()
		process.Kill()
		return 0, fmt.Errorf("%w: %q was destroyed meanwhile", ErrEnclave, n.name)
	}
	if process.Exited() {
		err = fmt.Errorf("policy %s has ended already: %w", program, plugin.ErrNoPolicy) // the one before stays
	} else if err = a.needGuard(); err == nil {
		if dark.from.IsZero() {
			dark.from = time.Now()
		}
		n.dark.end() // another change that is just over
		n.dark = dark
		old = a.takePolicy(n, "replaced by "+process.Traits.Name)
		n.program, n.args, n.began = program, args, began
		if err = a.givePolicy(n, process); err != nil {
			n.crashes++
			n.last = err.Error()
			a.loosen(n) // it has none now
		}
	}
	a.mu.Unlock()
	if err != nil {
		process.Kill()
		old.end()
		return 0, err
	}
	blackout = dark.wait()
	old.end()
	return blackout, nil
}

// beginStart returns an enclave whose page stays until started.
func (a *Actuator) beginStart(name string) (*enclave, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves[name]
	if n == nil || a.closed {
		return nil, fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	n.starting++
	return n, nil
}

// started is for a policy that no longer needs an enclave's page to start.
func (a *Actuator) started(n *enclave) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n.starting--
	if err := n.closePage(); err != nil {
		a.opts.Logger.Warn("close a page of status words", "enclave", n.name, "error", err)
	}
}

// closePage closes the page of an enclave that is destroyed, unless a policy that is
// starting is about to be given it.
func (n *enclave) closePage() error {
	if !n.destroyed || n.starting > 0 {
		return nil
	}
	return n.page.Close()
}

// darkness is the time that an enclave is without a policy while that is changed.
type darkness struct {
	from  time.Time // zero: not yet
	over  chan struct{}
	ended *time.Time // before over is closed
}

// longBlackout is for how long SetPolicy waits for a policy's first decision.
const longBlackout = time.Second

func beginDarkness(from time.Time) darkness {
	return darkness{from, make(chan struct{}), new(time.Time)}
}

// end is for the first decision, or if there is none to make.
func (b *darkness) end() {
	if b.over != nil {
		*b.ended = time.Now()
		close(b.over)
		b.over = nil
	}
}

func (b *darkness) wait() time.Duration {
	late := time.NewTimer(longBlackout)
	defer late.Stop()
	select {
	case <-b.over:
		return b.ended.Sub(b.from)
	case <-late.C: // its reader is told elsewhere if it stands still
		return time.Since(b.from)
	}
}

// givePolicy puts a policy in charge of an enclave without one.
// +checklocks:a.mu
func (a *Actuator) givePolicy(n *enclave, process *plugin.Process) error {
	d, err := process.Attach(clock(), n.e)
	if err != nil {
		return err
	}
	if err := d.Step(clock()); err != nil {
		err = errors.Join(err, d.Close(clock()))
		a.carryOut()
		return err
	}
	a.carryOut()
	n.process, n.driver, n.served = process, d, make(chan struct{})
	n.policies++
	if !n.e.Wanting() {
		n.dark.end()
	}
	served := n.served
	a.helpers.Go(func() { a.serve(n, d, served) })
	return nil
}

func (a *Actuator) command(program string, args []string) *exec.Cmd {
	if strings.Contains(program, "/") {
		return exec.Command(program, args...)
	}
	all := append(append([]string{}, a.opts.Policy...), program)
	return exec.Command(all[0], append(all[1:], args...)...)
}

// serve carries out what a policy decides until it ends or is taken away.
func (a *Actuator) serve(n *enclave, d *plugin.Driver, served chan struct{}) {
	defer close(served)
	for {
		a.mu.Lock()
		if n.driver != d {
			a.mu.Unlock()
			return // taken away
		}
		err := d.Step(clock())
		a.carryOut()
		if d.Stats().Batches > 0 {
			n.dark.end()
		}
		a.mu.Unlock()
		if err == nil {
			err = d.Wait()
		}
		if err != nil {
			a.crashed(n, d, err)
			return
		}
	}
}

// crashed gives the threads of a policy that has ended, or talks nonsense, back
// to the host's scheduler.
func (a *Actuator) crashed(n *enclave, d *plugin.Driver, why error) {
	a.mu.Lock()
	if n.driver != d {
		a.mu.Unlock()
		return // taken away
	}
	n.crashes++
	old := a.losePolicy(n, why.Error())
	a.mu.Unlock()
	a.opts.Logger.Warn("policy has ended", "enclave", n.name, "error", why)
	old.process.Kill()
}

// formerPolicy is a policy that was taken away, and has to be ended.
type formerPolicy struct {
	process *plugin.Process
	served  chan struct{}
}

// takePolicy takes the policy of an enclave away, if there is one: its threads
// are the host's scheduler's.
// +checklocks:a.mu
func (a *Actuator) takePolicy(n *enclave, why string) (old formerPolicy) {
	d := n.driver
	if d == nil {
		return old
	}
	from := time.Now()
	old = formerPolicy{n.process, n.served}
	n.process, n.driver, n.last, a.changes = nil, nil, why, true
	if err := d.Close(clock()); err != nil {
		a.opts.Logger.Warn("close a policy's rings", "enclave", n.name, "error", err)
	}
	a.carryOut()
	n.restored = time.Since(from)
	return old
}

// losePolicy is takePolicy if there is none in its place: exclusive cores are
// everybody's, too.
// +checklocks:a.mu
func (a *Actuator) losePolicy(n *enclave, why string) formerPolicy {
	from, had := time.Now(), n.driver != nil
	a.loosen(n)
	old := a.takePolicy(n, why)
	if had {
		n.restored = time.Since(from)
	}
	return old
}

// end ends the process, and returns when nothing is left of it.
func (f *formerPolicy) end() {
	if f.process != nil {
		f.process.Kill()
		<-f.served
	}
}

// endPolicy takes the policy of an enclave away and ends it.
func (a *Actuator) endPolicy(n *enclave, why string) {
	a.mu.Lock()
	old := a.takePolicy(n, why)
	a.mu.Unlock()
	old.end()
}
