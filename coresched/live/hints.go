package live

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/hints"
)

// program is a process with threads in enclaves, and its table of hints.
type program struct {
	pid     int
	threads int
	table   *hints.Reader // nil: none was found yet
	where   string        // the descriptor that it was found at
	look    time.Time     // when it is looked for, or at, again
	wait    time.Duration
}

// A table is looked for when a program's first thread comes, then ever more
// rarely.
const (
	firstLook  = 100 * time.Millisecond
	lastLook   = 3 * time.Second
	perLook    = 8    // programs that are looked at, at a beat
	mostTables = 1024 // that are mapped at once
)

// programOf finds the program of a thread that enters.
// +checklocks:a.mu
func (a *Actuator) programOf(pid int) *program {
	p := a.programs[pid]
	if p == nil {
		p = &program{pid: pid, wait: firstLook}
		a.programs[pid] = p
	}
	p.threads++
	return p
}

// leaveProgram is for a thread that has left.
// +checklocks:a.mu
func (a *Actuator) leaveProgram(p *program) {
	if p.threads--; p.threads == 0 {
		delete(a.programs, p.pid)
		a.dropTable(p)
	}
}

// +checklocks:a.mu
func (a *Actuator) dropTable(p *program) {
	if p.table == nil {
		return
	}
	if err := p.table.Close(); err != nil {
		a.opts.Logger.Warn("close a table of hints", "process", p.pid, "error", err)
	}
	p.table = nil
	a.tables--
}

// forgetHints is for a program whose table is gone.
// +checklocks:a.mu
func (a *Actuator) forgetHints(p *program) {
	if p.table == nil {
		return
	}
	a.dropTable(p)
	for _, m := range a.threads {
		if m.program == p {
			m.said = hints.Said{}
			a.stands(m)
		}
	}
	a.carryOut()
}

// lookForTables finds tables that programs have made, and lets go of those that
// are gone. It reads /proc, without the lock.
func (a *Actuator) lookForTables() {
	now := time.Now()
	type finding struct {
		p     *program
		table *hints.Reader
		where string
		err   error
	}
	var due []finding
	a.mu.Lock()
	for _, p := range a.programs {
		if len(due) < perLook && now.After(p.look) {
			p.wait = min(2*p.wait, lastLook)
			p.look = now.Add(p.wait)
			if p.table != nil && hints.Has(p.where) {
				continue
			}
			a.forgetHints(p)
			due = append(due, finding{p: p})
		}
	}
	a.mu.Unlock()
	for i := range due {
		f := &due[i]
		f.table, f.where, f.err = hints.Find(f.p.pid)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range due {
		switch {
		case f.err == nil && a.programs[f.p.pid] == f.p && a.tables < mostTables:
			f.p.table, f.p.where = f.table, f.where
			a.tables++
			a.opts.Logger.Debug("program gives hints", "process", f.p.pid)
		case f.err == nil:
			_ = f.table.Close() // it only was mapped
		case !errors.Is(f.err, hints.ErrNone):
			a.opts.Logger.Warn("hints of a program", "process", f.p.pid, "error", f.err)
		}
	}
}

// readHints reads what programs say of their threads that want a core.
// +checklocks:a.mu
func (a *Actuator) readHints() {
	if a.tables == 0 {
		return
	}
	for _, m := range a.threads {
		if m.program.table != nil && m.awake {
			a.stands(m)
		}
	}
	a.carryOut()
}

// wakes notes whether the kernel has a thread for one that can run.
// +checklocks:a.mu
func (a *Actuator) wakes(m *member, awake bool) {
	if awake && !m.awake {
		m.woke = clock()
	}
	m.awake = awake
	a.stands(m)
}

// stands tells the machine how a thread stands: it wants a core if the kernel has
// it for one that can run, and its program does not say that it has nothing to do.
// What does not change anything is ignored by the machine.
// +checklocks:a.mu
func (a *Actuator) stands(m *member) {
	if m.awake && m.program.table != nil {
		m.program.table.Read(m.tid, &m.said)
	}
	e, now := m.enclave.e, clock()
	if !m.awake || m.said.Idle {
		_ = e.Block(now, m.task)
		return
	}
	_ = e.Hint(now, m.task, m.hints())
	_ = e.Wakeup(now, m.task)
}

// hints are what policies are told of a thread.
func (m *member) hints() cs.Hints {
	h := cs.Hints{Nice: int8(m.nice), Group: uint32(m.tgid), Class: classOf(&m.original)}
	return m.said.Over(h, m.woke)
}

// classOf takes a thread for best effort that its owner has made so.
func classOf(o *original) cs.Class {
	if o.policy == unix.SCHED_IDLE || o.policy == unix.SCHED_BATCH {
		return cs.BestEffort
	}
	return cs.LatencyCritical
}
