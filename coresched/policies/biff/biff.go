// Package biff is the simplest policy, and the one to read first: who waits
// longest gets the first core that nobody has, and keeps it until it blocks.
package biff

import (
	"slices"

	cs "junction/coresched"
)

// Policy is biff.
type Policy struct {
	view    *cs.View
	waiting []cs.Task
}

// New returns the policy.
func New() *Policy { return &Policy{} }

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "biff"} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) { p.view, p.waiting = v, p.waiting[:0] }

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	i := slices.Index(p.waiting, m.Task)
	switch waits := m.Runnable && !m.OnCPU; {
	case waits && i < 0:
		p.waiting = append(p.waiting, m.Task)
	case !waits && i >= 0:
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
}

// Schedule implements coresched.Policy.
func (p *Policy) Schedule(_ cs.CPU, _ cs.Time, b *cs.Batch) {
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU; c = idle.Next(c + 1) {
		i := slices.IndexFunc(p.waiting, func(t cs.Task) bool { return p.view.Allowed(t, c) })
		if i < 0 {
			continue
		}
		b.Run(c, p.waiting[i])
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	if t.Result != cs.Complete && t.Task != cs.NoTask {
		p.waiting = slices.Insert(p.waiting, 0, t.Task)
	}
}
