package live

import (
	"bytes"
	"fmt"
	"os"

	cs "junction/coresched"
)

// Cores may go offline, and come back, while an enclave has them. No tracepoint
// tells a process, so the kernel's list is compared at each beat, which takes a
// microsecond. The policy is told, and what ran there is put elsewhere. Meanwhile
// the kernel has let threads that were bound to such a core alone run anywhere.

// onlineFile lists the cores that are online: Linux,
// Documentation/admin-guide/cputopology.rst.
const onlineFile = "/sys/devices/system/cpu/online"

// onlineCores are the cores that are online, as last read.
type onlineCores struct {
	file *os.File // nil: none can be read, all are online
	text [4096]byte
	last []byte // that it said
	cs.CPUSet
}

func openOnline(path string, all cs.CPUSet) (*onlineCores, error) {
	o := &onlineCores{CPUSet: all}
	f, err := os.Open(path)
	if err != nil {
		return o, err
	}
	o.file = f
	return o, nil
}

func (o *onlineCores) close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

// read tells whether the list has changed. One that cannot be read, or is empty, as
// when it is just being written, has not.
func (o *onlineCores) read() (changed bool) {
	if o.file == nil {
		return false
	}
	n, _ := o.file.ReadAt(o.text[:], 0) // io.EOF where it ends
	text := bytes.TrimSpace(o.text[:n])
	if len(text) == 0 || bytes.Equal(text, o.last) {
		return false
	}
	s, err := cs.ParseCPUSet(string(text))
	if err != nil {
		return false
	}
	o.last = append(o.last[:0], text...)
	changed = s != o.CPUSet
	o.CPUSet = s
	return changed
}

// has tells whether a thread that was bound to some cores is as it was made: the
// kernel shows only those that are online, and if none is, others.
func (o *onlineCores) has(cores, made cs.CPUSet) bool {
	made = o.of(made)
	return made.Empty() || cores == made
}

// of returns those cores of s that are online.
func (o *onlineCores) of(s cs.CPUSet) cs.CPUSet {
	for i := range s {
		s[i] &= o.CPUSet[i]
	}
	return s
}

// offline returns those cores of s that are not.
func (o *onlineCores) offline(s cs.CPUSet) cs.CPUSet {
	for i := range s {
		s[i] &^= o.CPUSet[i]
	}
	return s
}

// heedCores takes note of cores that went offline or came back. The caller carries
// out what follows from it.
// +checklocks:a.mu
func (a *Actuator) heedCores() {
	if before := a.online.CPUSet; a.online.read() {
		a.setCores(&before)
	}
}

// setCores tells the machine which cores are online, and before were others.
// +checklocks:a.mu
func (a *Actuator) setCores(before *cs.CPUSet) {
	var changed, back cs.CPUSet
	for c := range cs.CPU(a.machine.CPUs()) {
		if is := a.online.Has(c); is != before.Has(c) {
			_ = a.machine.SetCPU(clock(), c, is, false) // the machine has it
			changed.Add(c)
			if is {
				back.Add(c)
			}
		}
	}
	if changed.Empty() {
		return
	}
	a.opts.Logger.Warn("cores went offline or came back", "cpus", changed.String(), "online", a.online.String())
	for _, n := range a.enclaves {
		cpus := n.e.CPUs()
		if overlap(&cpus, &changed) {
			a.reapply(n)
			n.wake()
		}
	}
	if !back.Empty() && a.keeping > 0 {
		a.helpers.Go(a.keepAgain)
	}
}

// reapply has the kernel schedule an enclave's threads as they are to be.
// +checklocks:a.mu
func (a *Actuator) reapply(n *enclave) {
	for _, m := range a.threads {
		if m.enclave != n || !m.adopted {
			continue
		}
		x := cs.Action{Kind: cs.Stop}
		if s := n.e.Status(clock(), m.task); s.OnCPU {
			x = cs.Action{Kind: cs.Run, CPU: s.CPU}
		}
		a.carry(m, x)
	}
	for i := range a.instances.all {
		if i.enclave == n && i.adopted {
			i.host = hostSched{}
			a.touch(i)
		}
	}
}

func overlap(x, y *cs.CPUSet) bool {
	for i := range x {
		if x[i]&y[i] != 0 {
			return true
		}
	}
	return false
}

// keepAgain gives cores that came back to the cpusets that had them: the kernel took
// them out for good, and the tasks of a cpuset without any.
func (a *Actuator) keepAgain() {
	a.orders.Lock()
	defer a.orders.Unlock()
	a.mu.Lock()
	k := a.keeper
	a.mu.Unlock()
	err := k.refresh()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.enclaves {
		if err == nil && n.held {
			err = a.gather(n)
		}
	}
	if err != nil {
		a.opts.Logger.Warn("exclusive cores that came back", "error", err)
	}
}

// refresh writes the cores of all cpusets again.
func (k *keeper) refresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	rest, err := k.rest()
	if err != nil || len(k.kept) == 0 {
		return err
	}
	for _, x := range k.kept {
		if !x.loose && err == nil {
			err = k.ensureSet(k.setOf(&x.cpus), x.cpus, true)
		}
	}
	if err != nil {
		return err
	}
	return k.ensureSet(k.folder(restName), rest, false)
}

// mustBeOnline refuses cores for a new enclave that are offline.
// +checklocks:a.mu
func (a *Actuator) mustBeOnline(cpus cs.CPUSet) error {
	for i, w := range cs.FirstCPUs(a.machine.CPUs()) {
		cpus[i] &= w // the machine refuses others
	}
	if off := a.online.offline(cpus); !off.Empty() {
		return fmt.Errorf("%w: %s is offline; %s are online", cs.ErrCPU, off, a.online)
	}
	return nil
}
