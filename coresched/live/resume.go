package live

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/plugin"
)

// An actuator that dies leaves enclaves behind, whose threads its guard has given
// back to the host's scheduler. Its successor makes the enclaves again, and has
// those of their threads, and their policies, that are still there.

const (
	// guardTime is how long a dead actuator's guard may take to restore threads.
	guardTime = 10 * time.Second
	// orphanTime is how long policies wait for a successor.
	orphanTime = time.Minute
)

// Left tells whether an actuator has died and left its record at path.
func Left(path string) bool {
	_, err := os.Stat(path)
	return path != "" && err == nil
}

// Resume makes the enclaves of an actuator that died again, as it left them. What
// fails is logged, and the rest goes on. A record of before the machine was started
// is removed: there is nothing left of what it tells. Resume is to be called before
// all other methods. Instances have to join again, see Awaited.
func (a *Actuator) Resume() error {
	r, err := loadRecord(a.opts.State)
	if errors.Is(err, errOtherBoot) {
		a.opts.Logger.Info("enclaves are not made again", "reason", err)
		return a.unsave()
	}
	if err != nil {
		return err
	}
	if !r.Released && r.Guard.awaitEnd(guardTime) {
		if r, err = loadRecord(a.opts.State); err != nil {
			return err
		}
	}
	if !r.Released {
		r.release()
	}
	if r.Cpusets != "" {
		a.opts.Cpusets = r.Cpusets // this process may lie elsewhere
	}
	if err := Reclaim(a.opts.Cpusets); err != nil {
		a.opts.Logger.Warn("exclusive cores of an actuator that died", "error", err)
	}
	a.setResuming(true)
	for _, e := range r.Enclaves {
		if err := a.resumeEnclave(&r, &e); err != nil {
			a.opts.Logger.Warn("enclave is not as it was", "enclave", e.Name, "error", err)
		}
	}
	a.expect(r.Instances)
	a.setResuming(false)
	a.save()
	return nil
}

func (a *Actuator) setResuming(now bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resuming = now
}

// awaitEnd waits until a process has ended, which is killed if it takes too long.
// It is false if there was none.
func (i *identity) awaitEnd(most time.Duration) bool {
	if i.ID == 0 {
		return false
	}
	fd, err := unix.PidfdOpen(i.ID, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if !i.lives() {
		return true // it has just ended, or is somebody else
	}
	for late := time.Now().Add(most); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(late)).Milliseconds()))
		switch {
		case n > 0:
			return true
		case n == 0 || !errors.Is(err, unix.EINTR):
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it stands still
			return true
		}
	}
}

// release does what the guard would have done, had it not been killed too.
func (r *record) release() {
	for _, t := range r.Threads {
		if o, err := t.original(); err == nil && t.lives() {
			_ = o.restore(t.ID) // it may just have ended
		}
	}
	for _, p := range r.Instances {
		if o, err := p.original(); err == nil && p.lives() {
			_ = restoreProcess(p.ID, p.Started, &o)
		}
	}
}

func (a *Actuator) resumeEnclave(r *record, e *enclaveRecord) error {
	cpus, err := cs.ParseCPUSet(e.CPUs)
	if err != nil {
		return err
	}
	if err := a.Create(e.Name, cpus, e.Timeout); err != nil {
		return err
	}
	var errs []error
	if e.Exclusive {
		errs = append(errs, a.Keep(e.Name))
	}
	back := 0
	for _, t := range r.Threads {
		if t.Enclave != e.Name || !t.lives() {
			continue
		}
		if err := a.Push(e.Name, []int{t.ID}); err != nil && !errors.Is(err, ErrThread) {
			errs = append(errs, err)
			continue
		}
		back++
	}
	log := a.opts.Logger.With("enclave", e.Name, "threads", back)
	if e.Policy == nil {
		log.Info("enclave is there again")
		return errors.Join(errs...)
	}
	blackout, same, err := a.resumePolicy(e, startTime.Add(r.At-startMonotonic))
	log.Info("enclave is there again", "policy", e.Policy.Program, "same_process", same, "blackout", blackout)
	return errors.Join(append(errs, err)...)
}

// resumePolicy puts an enclave's policy in charge again: the process of before, if
// it still is there.
func (a *Actuator) resumePolicy(e *enclaveRecord, from time.Time) (blackout time.Duration, same bool, err error) {
	n, err := a.beginStart(e.Name)
	if err != nil {
		return 0, false, err
	}
	defer a.started(n)
	p := e.Policy
	var process *plugin.Process
	if who := (identity{p.Handle.PID, p.Started}); who.lives() {
		if process, err = plugin.Reattach(p.Handle, n.page, a.tailOf(n)); err != nil {
			a.opts.Logger.Warn("policy is started anew", "enclave", e.Name, "error", err)
		}
	}
	if same = process != nil; !same {
		if process, err = a.startPolicy(n, p.Program, p.Args, plugin.StartTimeout); err != nil {
			return 0, false, err
		}
	}
	blackout, err = a.install(n, process, p.Program, p.Args, beginDarkness(from))
	a.mu.Lock()
	defer a.mu.Unlock()
	n.takeover = blackout
	return blackout, same, err
}

// expect notes which instances were in enclaves.
func (a *Actuator) expect(all []instanceRecord) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range all {
		if i.lives() {
			a.awaited[i.ID] = i
		}
	}
}

// Awaited tells which enclave an instance was in, by its process's number, when the
// actuator before died. It is to Join that.
func (a *Actuator) Awaited(pid int) (enclave string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, ok := a.awaited[pid]
	return i.Enclave, ok && i.lives() && a.enclaves[i.Enclave] != nil
}
