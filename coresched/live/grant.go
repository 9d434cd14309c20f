package live

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// heedInstance takes note of what an instance wants.
// +checklocks:a.mu
func (a *Actuator) heedInstance(i *inst) {
	d := i.giver.Demand(len(i.kthreads))
	i.wants(max(d.Want, min(i.Spinning, len(i.kthreads))))
	now := clock()
	awake := 0
	for _, k := range i.kthreads {
		if k.awake {
			awake++
		}
	}
	for _, k := range i.kthreads {
		if !k.awake && awake < i.want {
			k.awake = i.enclave.e.WakeupSince(now, now-d.Longest, k.task) == nil
			awake++
		}
	}
	// Those without a core are blocked first.
	for _, holds := range []bool{false, true} {
		for _, k := range slices.Backward(i.kthreads) {
			if k.awake && awake > i.want && (k.cpu != cs.NoCPU) == holds {
				k.awake = i.enclave.e.Block(now, k.task) != nil
				awake--
			}
		}
	}
	if i.forced && i.giver.Settled() {
		i.forced = false
		i.giver.Report(false)
	}
	a.touch(i)
}

// touch has publish look at an instance.
// +checklocks:a.mu
func (a *Actuator) touch(i *inst) {
	if !i.touched {
		i.touched = true
		a.instances.touched = append(a.instances.touched, i)
	}
}

// carryKthread notes what the machine wants done to a kthread; publish does it.
// +checklocks:a.mu
func (a *Actuator) carryKthread(k *kthread, x cs.Action) {
	i := k.inst
	switch x.Kind {
	case cs.Adopt:
		i.adopted = true
	case cs.Release:
		i.adopted, i.audited = false, false
		a.place(k, cs.NoCPU)
	case cs.Run:
		a.place(k, x.CPU)
		i.enclave.handoffs++
	case cs.Stop:
		a.place(k, cs.NoCPU)
	}
	a.touch(i)
}

// place notes which core a kthread has. Only those to whom it is lent are looked
// at: most instances have nothing to do.
// +checklocks:a.mu
func (a *Actuator) place(k *kthread, c cs.CPU) {
	had, has := k.cpu != cs.NoCPU, c != cs.NoCPU
	k.cpu = c
	if had == has || k.inst.Class != cs.LatencyCritical {
		return
	}
	n := k.inst.enclave
	if n.lent++; had {
		n.lent -= 2
	}
	for o := range n.borrowers {
		a.touch(o)
	}
}

// wants notes how many kthreads an instance could use.
func (i *inst) wants(kthreads int) {
	i.want = kthreads
	if i.Class == cs.BestEffort && i.want > 0 {
		i.enclave.borrowers[i] = struct{}{}
	} else {
		delete(i.enclave.borrowers, i)
	}
}

// cores returns those that an instance's kthreads have.
func (i *inst) cores() (s cs.CPUSet, n int) {
	for _, k := range i.kthreads {
		if k.cpu != cs.NoCPU {
			s.Add(k.cpu)
			n++
		}
	}
	return s, n
}

// publish tells instances what they are granted now.
// +checklocks:a.mu
func (a *Actuator) publish() {
	for _, i := range a.instances.touched {
		i.touched = false
		if !i.left {
			a.grant(i)
		}
	}
	a.instances.touched = a.instances.touched[:0]
}

// +checklocks:a.mu
func (a *Actuator) grant(i *inst) {
	cores, has := i.cores()
	n := i.Kthreads
	switch {
	case !i.adopted:
	case i.Class == cs.LatencyCritical:
		n = max(1, i.Guaranteed, has)
	default:
		n = min(i.Kthreads, has+i.enclave.lent)
	}
	if has > 0 || i.want == 0 || !i.adopted {
		i.denied = false
	}
	less := n < i.granted
	if n != i.granted {
		i.giver.Grant(n, &cores, i.forced)
		i.granted = n
		i.grants++
	}
	a.applyHost(i)
	i.stand()
	lacks := i.shortage.begin(i.adopted && i.deniable(), i.had, func() time.Duration { return cpuTime(i.PID) })
	i.had = has
	if i.adopted && less || lacks {
		i.timer.Reset(yieldTime)
	}
}

// deniable tells whether an instance that wants a core has none, and was promised
// none either.
func (i *inst) deniable() bool {
	_, has := i.cores()
	return has == 0 && i.want > 0 && i.Guaranteed == 0
}

// enforce has the kernel do what an instance did not do by itself.
func (a *Actuator) enforce(i *inst) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i.left || !i.adopted {
		return
	}
	if !i.forced && !i.giver.Settled() {
		i.giver.Report(true)
		if i.forced = !i.giver.Settled(); i.forced { // it may just have
			i.forces++
		} else {
			i.giver.Report(false)
		}
	}
	switch {
	case i.denied || !i.deniable():
	case i.shortage.enough(cpuTime(i.PID)):
		i.denied = true
		i.denials++
	default:
		i.timer.Reset(yieldTime)
	}
	a.applyHost(i)
	i.stand()
}

// showLife shows those who want cores that they are still heeded.
// +checklocks:a.mu
func (a *Actuator) showLife() {
	for i := range a.instances.all {
		if i.want > 0 {
			i.giver.Beat()
		}
	}
}

// nameOf returns what a task is called in messages.
// +checklocks:a.mu
func (a *Actuator) nameOf(t cs.Task) string {
	if k := a.instances.kthreads[t]; k != nil {
		return "a kthread of instance " + k.inst.Name
	}
	if m := a.members[t]; m != nil {
		return m.comm
	}
	return fmt.Sprint("task ", t)
}

// idleClass tells whether an instance is SCHED_IDLE, for it is to have only what
// nobody else wants. Best effort is not where its group sees to that: both together
// are as bad as the class alone.
func (i *inst) idleClass() bool {
	_, has := i.cores()
	return i.Class == cs.BestEffort && i.group == "" || i.denied || (i.forced || i.excess != "") && has == 0 && i.Guaranteed == 0
}

// wantHost is how the instance's threads are to be scheduled.
func (i *inst) wantHost() hostSched {
	if !i.adopted {
		return hostSched{class: i.policy, cores: i.mask()}
	}
	h := hostSched{class: i.policy, cores: i.enclave.e.CPUs(), idle: i.group != ""}
	if i.idleClass() {
		h.class = unix.SCHED_IDLE
	}
	if cores, has := i.cores(); i.forced && has > 0 && has >= i.Guaranteed {
		h.cores = cores
	} else if i.excess != "" {
		h.cores = i.bound()
	}
	return h
}
