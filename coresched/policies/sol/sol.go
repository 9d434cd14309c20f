// Package sol is the speed of light: a central queue, and as little work for a
// decision as can be. All decisions of a round are committed as one group.
package sol

import cs "junction/coresched"

// Policy is sol. Its queue is a ring of tasks; one that died while it waited
// stays in the ring and is passed over, which is cheaper than finding it.
type Policy struct {
	view    *cs.View
	ring    []cs.Task // a power of two
	head    uint32
	tail    uint32
	waiting []bool // by task: it is in the ring, once
	parked  []cs.Task
}

// New returns the policy.
func New() *Policy { return &Policy{} }

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "sol", Group: cs.Grouped} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) { *p = Policy{view: v, ring: make([]cs.Task, 64)} }

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	for int(m.Task) >= len(p.waiting) {
		p.waiting = append(p.waiting, false)
	}
	if !m.Runnable || m.OnCPU {
		p.forget(m.Task)
	} else if !p.waiting[m.Task] {
		p.push(m.Task)
	}
}

// forget takes a task that waited out of the ring: it died, left, or was run
// without us. That is rare.
func (p *Policy) forget(t cs.Task) {
	if !p.waiting[t] {
		return
	}
	p.waiting[t] = false
	for n := p.tail - p.head; n > 0; n-- {
		if u := p.shift(); u != t {
			p.put(u)
		}
	}
}

func (p *Policy) push(t cs.Task) {
	p.waiting[t] = true
	p.put(t)
}

func (p *Policy) put(t cs.Task) {
	if p.tail-p.head == uint32(len(p.ring)) {
		p.grow()
	}
	p.ring[p.tail&uint32(len(p.ring)-1)] = t
	p.tail++
}

func (p *Policy) shift() cs.Task {
	t := p.ring[p.head&uint32(len(p.ring)-1)]
	p.head++
	return t
}

func (p *Policy) grow() {
	bigger := make([]cs.Task, 2*len(p.ring))
	n := p.tail - p.head
	for i := range n {
		bigger[i] = p.shift()
	}
	p.ring, p.head, p.tail = bigger, 0, n
}

// Schedule implements coresched.Policy.
func (p *Policy) Schedule(_ cs.CPU, _ cs.Time, b *cs.Batch) {
	idle := p.view.Idle()
	if p.head == p.tail || idle.Empty() {
		return
	}
	p.parked = p.parked[:0]
	for c := idle.Next(0); c != cs.NoCPU && p.head != p.tail; {
		t := p.shift()
		if !p.view.Allowed(t, c) {
			p.parked = append(p.parked, t) // another core, or the next round
			continue
		}
		p.waiting[t] = false
		b.Run(c, t)
		c = idle.Next(c + 1)
	}
	for _, t := range p.parked {
		p.put(t)
	}
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	if t.Result != cs.Complete && t.Task != cs.NoTask {
		p.push(t.Task)
	}
}
