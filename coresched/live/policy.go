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
	g, err := startGuard(exec.Command(a.opts.Guard[0], a.opts.Guard[1:]...), a.watch)
	if err != nil {
		return fmt.Errorf("the guard of core scheduling has ended; without one threads might never be restored: %w", err)
	}
	for _, n := range a.enclaves { // the guard has given its cores back, or nobody will
		a.loosen(n)
	}
	for tid, m := range a.threads {
		if err := g.take(tid, m.started, &m.original); err != nil {
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
	a.guard = g
	return nil
}

// SetPolicy puts a policy in charge of an enclave, in the place of the one
// before, if there is one. program is a policy's name, or the path of a program of
// its own. It returns for how long the enclave was without a policy: until the
// new one's first decision, if a thread waited for one.
func (a *Actuator) SetPolicy(name, program string, args []string) (blackout time.Duration, err error) {
	a.mu.Lock()
	n := a.enclaves[name]
	if n == nil || a.closed {
		a.mu.Unlock()
		return 0, fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	n.starting++
	a.mu.Unlock()
	defer a.started(n)
	if n.exclusive {
		if err := a.hold(n); err != nil {
			return 0, err
		}
	}
	said := &tail{logger: a.opts.Logger.With("enclave", name)}
	process, err := plugin.Start(a.command(program, args), n.page, said)
	if text := said.lastLine(); err != nil && text != "" {
		return 0, fmt.Errorf("policy %s: %s", program, text)
	}
	if err != nil {
		return 0, err
	}
	var old formerPolicy
	var dark darkness
	a.mu.Lock()
	if a.enclaves[name] != n {
		a.mu.Unlock()
		process.Kill()
		return 0, fmt.Errorf("%w: %q was destroyed meanwhile", ErrEnclave, name)
	}
	if err = a.needGuard(); err == nil {
		dark = beginDarkness()
		n.dark = dark
		old = a.takePolicy(n, "replaced by "+process.Traits.Name)
		err = a.givePolicy(n, process)
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
	from  time.Time
	over  chan struct{}
	ended *time.Time // before over is closed
}

// longBlackout is for how long SetPolicy waits for a policy's first decision.
const longBlackout = time.Second

func beginDarkness() darkness { return darkness{time.Now(), make(chan struct{}), new(time.Time)} }

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
	n.process, n.driver, n.last = nil, nil, why
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
