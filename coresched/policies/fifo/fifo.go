// Package fifo is fifo-central: one agent, one queue for all cores. With a
// slice, who has had a core that long goes to the end of the queue if others
// wait.
package fifo

import (
	cs "junction/coresched"
	"junction/coresched/policies/runq"
)

// Options are the policy's parameters.
type Options struct {
	// Slice is after what time a task makes way for others; 0: never.
	Slice cs.Time
}

// Policy is fifo-central.
type Policy struct {
	opts    Options
	view    *cs.View
	waiting *runq.Lists
	slices  runq.Slices
}

// New returns the policy.
func New(o Options) *Policy { return &Policy{opts: o} }

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "fifo-central"} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) {
	p.view, p.waiting, p.slices = v, runq.NewLists(1), runq.Slices{Length: p.opts.Slice}
}

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	p.waiting.Note(0, m)
	if m.OnCPU { // it ran before we were told of it
		p.slices.Began(p.view.Since(m.CPU))
	}
}

// Schedule implements coresched.Policy.
func (p *Policy) Schedule(_ cs.CPU, now cs.Time, b *cs.Batch) {
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU && p.waiting.Len(0) > 0; c = idle.Next(c + 1) {
		p.give(c, b)
	}
	if p.waiting.Len(0) > 0 {
		p.slices.Expire(p.view, now, b, func(c cs.CPU) { p.give(c, b) })
	}
}

func (p *Policy) give(c cs.CPU, b *cs.Batch) {
	if t := p.waiting.Take(p.view, 0, c); t != cs.NoTask {
		b.Run(c, t)
	}
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	switch {
	case t.Task == cs.NoTask:
	case t.Result != cs.Complete:
		p.waiting.PushFront(0, t.Task)
	default:
		p.slices.Began(p.view.Since(t.CPU))
	}
}
