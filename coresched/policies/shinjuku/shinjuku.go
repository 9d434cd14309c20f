// Package shinjuku is a central policy with time slices of microseconds (after
// Shinjuku, NSDI 2019, and ghOSt's policy of that name): a long request makes
// way for short ones, and an urgent class for others at once.
package shinjuku

import (
	"time"

	cs "junction/coresched"
	"junction/coresched/policies/runq"
)

// Options are the policy's parameters.
type Options struct {
	// Slice is after what time a task makes way for others of its class or of a
	// more urgent one. 0 is the constant Slice.
	Slice cs.Time
}

// Slice is the time slice unless another is given.
const Slice = 30 * time.Microsecond

const qos = int(cs.BestEffort) + 1

// Policy is shinjuku.
type Policy struct {
	view    *cs.View
	waiting *runq.Lists // by class
	slices  runq.Slices
	lesser  cs.CPUSet // cores that run best effort
}

// New returns the policy.
func New(o Options) *Policy {
	if o.Slice <= 0 {
		o.Slice = Slice
	}
	return &Policy{slices: runq.Slices{Length: o.Slice}}
}

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "shinjuku", Group: cs.Grouped} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) {
	p.view, p.waiting, p.lesser = v, runq.NewLists(qos), cs.CPUSet{}
	p.slices = runq.Slices{Length: p.slices.Length}
}

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	p.waiting.Note(int(m.Hints.Class), m)
	if m.OnCPU {
		p.began(m.CPU, m.Task)
	}
}

// Schedule implements coresched.Policy.
func (p *Policy) Schedule(_ cs.CPU, now cs.Time, b *cs.Batch) {
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU; c = idle.Next(c + 1) {
		p.give(c, qos-1, b)
	}
	if p.waiting.Len(0) > 0 {
		p.pushOff(b)
	}
	if p.waiting.Len(0)+p.waiting.Len(1) == 0 {
		return
	}
	p.slices.Expire(p.view, now, b, func(c cs.CPU) {
		if t := p.view.Running(c); p.view.Since(c) < now {
			p.give(c, int(p.view.Hints(t).Class), b)
		}
	})
}

// give has the most urgent task, down to class least, run on c.
func (p *Policy) give(c cs.CPU, least int, b *cs.Batch) {
	for q := 0; q <= least; q++ {
		if t := p.waiting.Take(p.view, q, c); t != cs.NoTask {
			b.Run(c, t)
			p.lesser.Remove(c)
			return
		}
	}
}

// pushOff takes cores from best effort for the urgent who wait.
func (p *Policy) pushOff(b *cs.Batch) {
	for c := p.lesser.Next(0); c != cs.NoCPU && p.waiting.Len(0) > 0; c = p.lesser.Next(c + 1) {
		if t := p.view.Running(c); t == cs.NoTask || p.view.Hints(t).Class != cs.BestEffort {
			p.lesser.Remove(c)
			continue
		}
		p.give(c, 0, b)
	}
}

func (p *Policy) began(c cs.CPU, t cs.Task) {
	p.slices.Began(p.view.Since(c))
	if p.view.Hints(t).Class == cs.BestEffort {
		p.lesser.Add(c)
	}
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	switch {
	case t.Task == cs.NoTask:
	case t.Result == cs.Complete:
		p.began(t.CPU, t.Task)
	default:
		p.waiting.PushFront(int(p.view.Hints(t.Task).Class), t.Task)
		if old := p.view.Running(t.CPU); old != cs.NoTask {
			p.began(t.CPU, old)
		}
	}
}
