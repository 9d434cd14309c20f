// Package fifopercpu is fifo-percpu: an agent and a queue on each core. A task
// stays with the core whose agent hears of it; nothing is moved to idle cores.
package fifopercpu

import (
	cs "junction/coresched"
	"junction/coresched/policies/runq"
)

// Policy is fifo-percpu.
type Policy struct {
	view    *cs.View
	waiting *runq.Lists // by core
	home    []cs.CPU    // by task
}

// New returns the policy.
func New() *Policy { return &Policy{} }

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "fifo-percpu", PerCPU: true} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) {
	last := cs.CPU(0)
	for c := v.CPUs().Next(0); c != cs.NoCPU; c = v.CPUs().Next(c + 1) {
		last = c
	}
	p.view, p.waiting, p.home = v, runq.NewLists(int(last)+1), nil
}

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	for int(m.Task) >= len(p.home) {
		p.home = append(p.home, cs.NoCPU)
	}
	p.home[m.Task] = m.Home
	p.waiting.Note(int(m.Home), m)
}

// Schedule implements coresched.Policy.
func (p *Policy) Schedule(agent cs.CPU, _ cs.Time, b *cs.Batch) {
	if !p.view.Idle().Has(agent) {
		return
	}
	if t := p.waiting.Take(p.view, int(agent), agent); t != cs.NoTask {
		b.Run(agent, t)
	}
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	if t.Result != cs.Complete && t.Task != cs.NoTask && !p.waiting.Has(t.Task) {
		p.waiting.PushFront(int(p.home[t.Task]), t.Task)
	}
}
