// Package sol is the speed of light: a central queue, and as little work for a
// decision as can be. All decisions of a round are committed as one group.
package sol

import cs "junction/coresched"

// Policy is sol. Its queue is a ring of tasks.
type Policy struct {
	view    *cs.View
	ring    []cs.Task // a power of two
	head    uint32
	tail    uint32
	waiting []bool // by task: it is in the ring, once
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
	if p.head == p.tail {
		return
	}
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU && p.head != p.tail; c = idle.Next(c + 1) {
		if t := p.take(c); t != cs.NoTask {
			p.waiting[t] = false
			b.Run(c, t)
		}
	}
}

// take removes and returns the first task that may run on c, or NoTask. Most
// often it is the first of all.
func (p *Policy) take(c cs.CPU) cs.Task {
	mask := uint32(len(p.ring) - 1)
	for i := p.head; i != p.tail; i++ {
		t := p.ring[i&mask]
		if !p.view.Allowed(t, c) {
			continue
		}
		for ; i != p.head; i-- { // those before it move up
			p.ring[i&mask] = p.ring[(i-1)&mask]
		}
		p.head++
		return t
	}
	return cs.NoTask
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	if t.Result != cs.Complete && t.Task != cs.NoTask {
		p.push(t.Task)
	}
}
