package live

import (
	"fmt"
	"time"

	cs "junction/coresched"
	"junction/coresched/excess"
)

// What a latency-critical instance wants, and that it has complied, is its own word.
// So the CPU time of its processes is read from time to time, and one that uses far
// more than it was granted (package excess) is held for a while as one that does not
// comply: bound to the cores that it has or is guaranteed, or SCHED_IDLE without any.
// Best effort has only what others leave in any case.

const (
	// perAudit is how many instances are looked at in a comparison; one round of all
	// takes auditRound at least.
	perAudit   = 4
	auditRound = 500 * time.Millisecond
	// auditGap: after a longer time in which nobody looked, instances may have heard as
	// little of us as we of them, and nothing counts.
	auditGap = 2 * time.Second
	// listEvery is at how many looks at an instance its processes are listed: a process
	// takes a microsecond, the list of them a hundred.
	listEvery = 8
)

// audits is the part of instances that is about them.
type audits struct {
	rota  []*inst // still to be looked at in this round
	began time.Time
	at    time.Time // the last audit
	round uint64    // counts gaps, from 1 on
	over  map[*inst]struct{}
}

// meter adds up CPU time. Only the watchdog uses it.
type meter struct {
	clock func(pid int) time.Duration // of a process; 0: there is none
	used  map[int]time.Duration       // of each process
	looks int
}

// read returns how much a process and its descendants have used since the last call,
// and whether there was one and there still is the process.
func (m *meter) read(pid int) (used time.Duration, ok bool) {
	first := m.used == nil
	if first {
		m.used = map[int]time.Duration{}
	}
	if m.looks++; first || m.looks%listEvery == 0 {
		m.list(pid, first)
	}
	for p, before := range m.used {
		now := m.clock(p)
		if now == 0 {
			delete(m.used, p)
			continue
		}
		used += max(0, now-before)
		m.used[p] = now
	}
	_, lives := m.used[pid]
	return used, lives && !first
}

// list finds new processes. All that they have used counts, but at the first time.
func (m *meter) list(pid int, first bool) {
	for _, p := range allProcesses(pid, nil) {
		if _, known := m.used[p]; known {
			continue
		}
		m.used[p] = 0
		if first {
			m.used[p] = m.clock(p)
		}
	}
}

// audit looks at the next instances.
func (a *Actuator) audit() {
	due, round := a.dueForAudit(time.Now())
	for _, i := range due {
		if i.meterRound != round {
			i.meter, i.meterRound = meter{clock: a.cpuClock}, round
		}
		used, ok := i.meter.read(i.PID)
		a.mu.Lock()
		a.judge(i, used, ok)
		a.mu.Unlock()
	}
}

// dueForAudit lets go of those whose hold is over, and returns the next to be looked at.
func (a *Actuator) dueForAudit(now time.Time) (due []*inst, round uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := &a.instances.audits
	for i := range x.over {
		if _, until := i.account.Held(); i.left || clock() >= until {
			a.endHold(i)
		}
	}
	if now.Sub(x.at) > auditGap {
		x.round++
	}
	x.at = now
	if len(x.rota) == 0 && now.Sub(x.began) >= auditRound {
		x.began = now
		for i := range a.instances.all {
			if i.Class == cs.LatencyCritical {
				x.rota = append(x.rota, i)
			}
		}
	}
	n := min(perAudit, len(x.rota))
	due, x.rota = x.rota[:n:n], x.rota[n:]
	return due, x.round
}

// judge holds an instance that has used too much since it was last looked at. What
// counts begins at the first look after it came under a policy.
// +checklocks:a.mu
func (a *Actuator) judge(i *inst, used time.Duration, ok bool) {
	if i.left || !i.adopted {
		return
	}
	now := clock()
	since := now - i.judged
	i.judged = now
	if !ok || !i.audited {
		i.account.Begin(now, i.standing())
		i.audited = true
		return
	}
	switch i.account.Look(now, used) {
	case excess.Suspect:
		i.giver.Ask()
	case excess.Excess:
		_, has := i.cores()
		i.excess = fmt.Sprintf("it used %.1f cores and had %d", used.Seconds()/since.Seconds(), has)
		i.excesses++
		a.instances.audits.over[i] = struct{}{}
		a.applyHost(i)
		i.stand()
		long, _ := i.account.Held()
		a.opts.Logger.Warn("instance is held: it uses far more than it was granted", "instance", i.Name, "enclave", i.enclave.name,
			"reason", i.excess, "wants", i.want, "for", long)
	}
}

// +checklocks:a.mu
func (a *Actuator) endHold(i *inst) {
	delete(a.instances.audits.over, i)
	i.excess, i.audited = "", false
	if i.left {
		return
	}
	a.applyHost(i)
	a.opts.Logger.Info("instance is held no more", "instance", i.Name)
}

// standing is what the instance may do now.
func (i *inst) standing() excess.Standing {
	cpus := i.enclave.e.CPUs()
	_, has := i.cores()
	return excess.Standing{
		Cores: cpus.Len(), Has: has, Guaranteed: i.Guaranteed, Wants: i.want > 0, Free: i.denied || i.forced || i.excess != "",
	}
}

// stand notes it.
func (i *inst) stand() {
	if i.audited {
		i.account.Stand(clock(), i.standing())
	}
}

// heldWhy says why the kernel holds an instance, if it does.
func (i *inst) heldWhy() string {
	switch {
	case i.excess != "":
		return i.excess
	case i.forced:
		return "it did not comply in time"
	case i.denied:
		return "no core for it"
	}
	return ""
}

// bound returns the cores that one is held to: those that it has, and as many as it is
// guaranteed; all of the enclave, where it is SCHED_IDLE, if that is none.
func (i *inst) bound() cs.CPUSet {
	cores, n := i.cores()
	all := i.enclave.online.of(i.enclave.e.CPUs())
	for c := all.Next(0); c != cs.NoCPU && n < i.Guaranteed; c = all.Next(c + 1) {
		if !cores.Has(c) {
			cores.Add(c)
			n++
		}
	}
	if n == 0 {
		return i.enclave.e.CPUs()
	}
	return cores
}
