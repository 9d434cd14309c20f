package live

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"junction/coresched/plugin"
)

var errGuard = errors.New("the guard of core scheduling has ended; without it threads might never be restored: start junctiond anew")

// SetPolicy puts a policy in charge of an enclave, in the place of the one
// before, if there is one. program is a policy's name, or the path of a program of
// its own. It returns for how long the enclave was without a policy.
func (a *Actuator) SetPolicy(name, program string, args []string) (blackout time.Duration, err error) {
	a.mu.Lock()
	n := a.enclaves[name]
	closed := a.closed
	a.mu.Unlock()
	if n == nil || closed {
		return 0, fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	select {
	case <-a.guard.ended:
		return 0, errGuard
	default:
	}
	said := &tail{logger: a.opts.Logger.With("enclave", name)}
	process, err := plugin.Start(a.command(program, args), n.page, said)
	if text := said.lastLine(); err != nil && text != "" {
		return 0, fmt.Errorf("policy %s: %s", program, text)
	}
	if err != nil {
		return 0, err
	}
	a.mu.Lock()
	if a.enclaves[name] != n {
		a.mu.Unlock()
		process.Kill()
		return 0, fmt.Errorf("%w: %q was destroyed meanwhile", ErrEnclave, name)
	}
	from := time.Now()
	old := a.takePolicy(n, "replaced by "+process.Traits.Name)
	err = a.givePolicy(n, process)
	blackout = time.Since(from)
	a.mu.Unlock()
	old.end()
	if err != nil {
		process.Kill()
	}
	return blackout, err
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
	old := a.takePolicy(n, why.Error())
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
	old = formerPolicy{n.process, n.served}
	n.process, n.driver, n.last = nil, nil, why
	if err := d.Close(clock()); err != nil {
		a.opts.Logger.Warn("close a policy's rings", "enclave", n.name, "error", err)
	}
	a.carryOut()
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
