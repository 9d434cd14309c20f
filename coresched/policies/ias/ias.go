// Package ias gives cores to instances (after Caladan, OSDI 2020). A task is a
// kthread of the instance that its hints name. A latency-critical instance has
// the cores that it is guaranteed as soon as it wants them, and more, burst
// cores, while its work waits too long. Best effort has the rest, in turns.
package ias

import (
	"cmp"

	cs "junction/coresched"
	"junction/coresched/policies/runq"
)

// Options are the policy's parameters.
type Options struct {
	// Delay is how long a kthread waits for a core before its instance counts
	// as congested, if its hints do not say. Default 10 µs.
	Delay cs.Time
	// Quantum is how long best effort keeps a core while other best effort
	// waits. Default 100 µs.
	Quantum cs.Time
}

// Policy is ias.
type Policy struct {
	opts    Options
	view    *cs.View
	waiting *runq.Lists // by instance
	numbers map[key]int
	groups  []group
	owner   []int        // by core: the instance that has it, or -1
	wanting [2]groupList // instances of which a kthread waits, by class
	quanta  runq.Slices
}

type key struct {
	group uint32
	class cs.Class
}

// group is an instance.
type group struct {
	class      cs.Class
	guaranteed int
	delay      cs.Time
	running    int
	place      int // in wanting + 1
}

// groupList is a set of instances that can be walked in turns.
type groupList struct {
	all  []int
	turn int
}

// New returns the policy.
func New(o Options) *Policy {
	if o.Delay <= 0 {
		o.Delay = 10_000
	}
	if o.Quantum <= 0 {
		o.Quantum = 100_000
	}
	return &Policy{opts: o}
}

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "ias", Group: cs.Grouped} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) {
	*p = Policy{
		opts: p.opts, view: v, waiting: runq.NewLists(0), numbers: map[key]int{},
		quanta: runq.Slices{Length: p.opts.Quantum},
	}
	for c := v.CPUs().Next(0); c != cs.NoCPU; c = v.CPUs().Next(c + 1) {
		for len(p.owner) <= int(c) {
			p.owner = append(p.owner, -1)
		}
	}
}

// instance returns the number of the instance of a task with hints h.
func (p *Policy) instance(h *cs.Hints) int {
	k := key{h.Group, h.Class}
	g, ok := p.numbers[k]
	if !ok {
		g = len(p.groups)
		p.numbers[k] = g
		p.groups = append(p.groups, group{class: h.Class})
		p.waiting.Grow(g + 1)
	}
	p.groups[g].guaranteed, p.groups[g].delay = int(h.Guaranteed), cmp.Or(h.Delay, p.opts.Delay)
	return g
}

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	g := p.instance(&m.Hints)
	if m.CPU != cs.NoCPU && p.view.Running(m.CPU) == cs.NoTask {
		p.own(m.CPU, -1)
	}
	before, waited := p.waiting.In(m.Task)
	p.waiting.Note(g, m)
	p.want(g)
	if waited && before != g { // it is of another class than before
		p.want(before)
	}
	if m.OnCPU {
		p.own(m.CPU, g)
	}
}

// own notes that instance g has core c; -1: nobody has.
func (p *Policy) own(c cs.CPU, g int) {
	if old := p.owner[c]; old >= 0 {
		p.groups[old].running--
	}
	p.owner[c] = g
	if g >= 0 {
		p.groups[g].running++
	}
}

// want keeps g among those that want cores while a kthread of it waits.
func (p *Policy) want(g int) {
	s := &p.groups[g]
	l := &p.wanting[s.class]
	switch waits := p.waiting.Len(g) > 0; {
	case waits && s.place == 0:
		l.all = append(l.all, g)
		s.place = len(l.all)
	case !waits && s.place > 0:
		last := len(l.all) - 1
		l.all[s.place-1] = l.all[last]
		p.groups[l.all[last]].place = s.place
		l.all = l.all[:last]
		s.place = 0
	}
}

// Schedule implements coresched.Policy. Who is owed a core comes first, then
// who is congested, then whoever wants one that is idle.
func (p *Policy) Schedule(_ cs.CPU, now cs.Time, b *cs.Batch) {
	lc := &p.wanting[cs.LatencyCritical]
	p.serve(lc, b, func(g int) bool { return p.owed(g) }, p.takeForOwed)
	p.serve(lc, b, func(g int) bool { return p.groups[g].running == 0 }, nil)
	p.serve(lc, b, func(g int) bool { return p.congested(g, now, b) }, p.takeForBurst)
	be := &p.wanting[cs.BestEffort]
	p.serve(be, b, func(g int) bool { return p.owed(g) }, p.takeForOwed)
	p.serve(be, b, func(int) bool { return true }, nil)
	if len(be.all) > 0 {
		p.quanta.Expire(p.view, now, b, func(c cs.CPU) { p.turn(c, b) })
	}
}

func (p *Policy) owed(g int) bool { return p.groups[g].running < p.groups[g].guaranteed }

// congested tells whether g's longest wait is too long, and sees to it that we
// look again when it will be.
func (p *Policy) congested(g int, now cs.Time, b *cs.Batch) bool {
	limit := p.view.RunnableAt(p.waiting.First(g)) + p.groups[g].delay
	if now >= limit {
		return true
	}
	b.Again(limit)
	return false
}

// serve gives cores to the instances of l that deserve one, one at a time each,
// in turns: idle cores, then those that take finds, until there are none.
func (p *Policy) serve(l *groupList, b *cs.Batch, deserves func(g int) bool, take func(b *cs.Batch) cs.CPU) {
	for without := 0; without < len(l.all); {
		l.turn++
		g := l.all[l.turn%len(l.all)]
		if !deserves(g) {
			without++
			continue
		}
		c := p.idleFor(g)
		if c == cs.NoCPU && take != nil {
			c = take(b)
		}
		if c == cs.NoCPU || !p.give(c, g, b) {
			without++
			continue
		}
		without = 0
	}
}

// idleFor returns an idle core that the first kthread of g may use, or NoCPU.
func (p *Policy) idleFor(g int) cs.CPU {
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU; c = idle.Next(c + 1) {
		if p.view.Allowed(p.waiting.First(g), c) {
			return c
		}
	}
	return cs.NoCPU
}

// give has a kthread of g run on c. Until the result is known the core counts
// as g's.
func (p *Policy) give(c cs.CPU, g int, b *cs.Batch) bool {
	t := p.waiting.Take(p.view, g, c)
	if t == cs.NoTask {
		return false
	}
	p.own(c, g)
	p.want(g)
	b.Run(c, t)
	return true
}

// takeForOwed finds a core of an instance that has more than it is guaranteed:
// of best effort, else a burst core.
func (p *Policy) takeForOwed(b *cs.Batch) cs.CPU {
	if c := p.surplus(b, cs.BestEffort); c != cs.NoCPU {
		return c
	}
	return p.surplus(b, cs.LatencyCritical)
}

// takeForBurst finds a core that best effort has beyond its guarantee.
func (p *Policy) takeForBurst(b *cs.Batch) cs.CPU { return p.surplus(b, cs.BestEffort) }

// surplus returns the core of the instance of a class that has the most beyond
// its guarantee, of these the one it has had longest, or NoCPU.
func (p *Policy) surplus(b *cs.Batch, class cs.Class) cs.CPU {
	found, most := cs.NoCPU, 0
	for i, g := range p.owner {
		c := cs.CPU(i)
		if g < 0 || p.groups[g].class != class || b.Names(c) || p.view.Running(c) == cs.NoTask {
			continue
		}
		extra := p.groups[g].running - p.groups[g].guaranteed
		if extra > most || extra == most && found != cs.NoCPU && p.view.Since(c) < p.view.Since(found) {
			found, most = c, extra
		}
	}
	return found
}

// turn gives core c, which best effort has had for a quantum, to the next who
// waits, unless its owner is not above its guarantee.
func (p *Policy) turn(c cs.CPU, b *cs.Batch) {
	old := p.owner[c]
	l := &p.wanting[cs.BestEffort]
	if old < 0 || p.groups[old].class != cs.BestEffort || len(l.all) == 0 {
		return
	}
	if s := &p.groups[old]; s.guaranteed > 0 && s.running <= s.guaranteed {
		return
	}
	l.turn++
	p.give(c, l.all[l.turn%len(l.all)], b)
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	switch {
	case t.Task == cs.NoTask:
	case t.Result == cs.Complete:
		p.quanta.Began(p.view.Since(t.CPU))
	default:
		g := p.instance(p.view.Hints(t.Task))
		p.waiting.PushFront(g, t.Task)
		p.want(g)
		p.ownAgain(t.CPU)
	}
}

// ownAgain notes who has c after a transaction that failed.
func (p *Policy) ownAgain(c cs.CPU) {
	if int(c) >= len(p.owner) {
		return
	}
	g := -1
	if r := p.view.Running(c); r != cs.NoTask {
		g = p.instance(p.view.Hints(r))
	}
	p.own(c, g)
}
