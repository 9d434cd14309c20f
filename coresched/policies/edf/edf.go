// Package edf is earliest deadline first over all cores, with preemption. A
// task's deadline is in its hints when it wakes; tasks without one come last,
// in the order of their waking.
package edf

import (
	"math"

	cs "junction/coresched"
	"junction/coresched/policies/runq"
)

// Policy is edf.
type Policy struct {
	view    *cs.View
	waiting runq.Heap
	aside   []cs.Task // Schedule's
}

// New returns the policy.
func New() *Policy { return &Policy{} }

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "edf", Group: cs.Grouped} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) { p.view, p.waiting = v, runq.Heap{} }

func (p *Policy) deadline(t cs.Task) int64 {
	if d := p.view.Hints(t).Deadline; d > 0 {
		return int64(d)
	}
	return math.MaxInt64
}

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	p.waiting.Remove(m.Task)
	if m.Runnable && !m.OnCPU {
		p.waiting.Push(m.Task, p.deadline(m.Task))
	}
}

// Schedule implements coresched.Policy.
func (p *Policy) Schedule(_ cs.CPU, _ cs.Time, b *cs.Batch) {
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU && p.waiting.Len() > 0; c = idle.Next(c + 1) {
		if t := p.waiting.Take(p.view, c); t != cs.NoTask {
			b.Run(c, t)
		}
	}
	p.aside = p.aside[:0]
	for p.waiting.Len() > 0 {
		t, _ := p.waiting.First()
		c, later := p.latest(t, b)
		if !later {
			break // nor is any later than those of the others who wait
		}
		p.waiting.Remove(t)
		if c == cs.NoCPU { // another one may be able to use that core
			p.aside = append(p.aside, t)
			continue
		}
		b.Run(c, t)
	}
	for _, t := range p.aside {
		p.waiting.Push(t, p.deadline(t))
	}
}

// latest returns the core, not in the batch, with the latest deadline that is later
// than that of t and where t may run, or NoCPU, and whether any core has a later one.
func (p *Policy) latest(t cs.Task, b *cs.Batch) (found cs.CPU, later bool) {
	key := p.deadline(t)
	last := key
	found = cs.NoCPU
	cpus := p.view.CPUs()
	for c := cpus.Next(0); c != cs.NoCPU; c = cpus.Next(c + 1) {
		r := p.view.Running(c)
		if r == cs.NoTask || b.Names(c) {
			continue
		}
		d := p.deadline(r)
		later = later || d > key
		if d > last && p.view.Allowed(t, c) {
			last, found = d, c
		}
	}
	return found, later
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	if t.Result != cs.Complete && t.Task != cs.NoTask {
		p.waiting.Push(t.Task, p.deadline(t.Task))
	}
}
