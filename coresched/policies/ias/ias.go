// Package ias gives cores to instances (after Caladan, OSDI 2020). A task is a
// kthread of the instance that its hints name. A latency-critical instance has
// the cores that it is guaranteed as soon as it wants them, and more, burst
// cores, while its work waits too long. Best effort has the rest, in turns. Tasks of
// an instance that may run on different cores take turns apart: those of one core
// do not lose theirs because others had one elsewhere.
package ias

import (
	"time"

	cs "junction/coresched"
	"junction/coresched/policies/runq"
)

// Options are the policy's parameters. Zero values mean the defaults.
type Options struct {
	// Delay is how long a kthread waits for a core before its instance counts
	// as congested, if its hints do not say.
	Delay cs.Time
	// Quantum is how long best effort keeps a core while other best effort
	// waits.
	Quantum cs.Time
}

// Defaults of Options.
const (
	Delay   = 10 * time.Microsecond
	Quantum = 100 * time.Microsecond
)

// Policy is ias.
type Policy struct {
	opts    Options
	view    *cs.View
	waiting *runq.Lists // by group
	numbers map[key]int
	groups  []group
	free    []int       // numbers of groups that are gone
	of      []int       // by task: its group + 1
	owner   []int       // by core: the group that has it, or -1
	wanting *runq.Lists // by class: groups of which a kthread waits, as element
	quanta  runq.Slices

	instances map[name]*instance
	limits    map[cs.CPUSet]*limit
}

// element is what group g is called in wanting, where no element is 0.
func element(g int) cs.Task { return cs.Task(g + 1) }

func fromElement(e cs.Task) (g int) { return int(e) - 1 }

// New returns the policy.
func New(o Options) *Policy {
	if o.Delay <= 0 {
		o.Delay = Delay
	}
	if o.Quantum <= 0 {
		o.Quantum = Quantum
	}
	return &Policy{opts: o}
}

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "ias", Group: cs.Grouped} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) {
	*p = Policy{
		opts: p.opts, view: v, waiting: runq.NewLists(0), wanting: runq.NewLists(int(cs.BestEffort) + 1), numbers: map[key]int{},
		quanta:    runq.Slices{Length: p.opts.Quantum},
		instances: map[name]*instance{}, limits: map[cs.CPUSet]*limit{},
	}
	for c := v.CPUs().Next(0); c != cs.NoCPU; c = v.CPUs().Next(c + 1) {
		for len(p.owner) <= int(c) {
			p.owner = append(p.owner, -1)
		}
	}
}

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	l := p.limitOf(m.Task)
	if m.Type == cs.TaskNew || m.Type == cs.TaskAffinityChanged {
		l = p.readLimit(m.Task)
	}
	g := p.group(m.Task, &m.Hints, l)
	p.join(m.Task, g)
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
		p.quanta.Began(p.view.Since(m.CPU)) // it may have run before we were told of it
	}
	if m.Type == cs.TaskDead || m.Type == cs.TaskDeparted {
		p.join(m.Task, -1)
	}
}

// own notes that group g has core c; -1: nobody has.
func (p *Policy) own(c cs.CPU, g int) {
	old := p.owner[c]
	p.owner[c] = g
	if g >= 0 {
		p.groups[g].running++
		p.groups[g].instance.running++
	}
	if old >= 0 {
		p.groups[old].running--
		p.groups[old].instance.running--
		p.retire(old)
	}
}

// want keeps g among those that want cores while a kthread of it waits: those that
// have not had one for longest come first.
func (p *Policy) want(g int) {
	e := element(g)
	switch waits := p.waiting.Len(g) > 0; {
	case waits && !p.wanting.Has(e):
		p.wanting.PushBack(int(p.groups[g].class), e)
	case !waits:
		p.wanting.Remove(e)
	}
}

// Schedule implements coresched.Policy. Who is owed a core comes first, then
// who is congested, then whoever wants one that is idle.
func (p *Policy) Schedule(_ cs.CPU, now cs.Time, b *cs.Batch) {
	lc, be := cs.LatencyCritical, cs.BestEffort
	p.serve(lc, b, func(g int) bool { return p.owed(g) }, p.takeForOwed)
	p.serve(lc, b, func(g int) bool { return p.groups[g].instance.running == 0 }, nil)
	p.serve(lc, b, func(g int) bool { return p.congested(g, now, b) }, p.takeForBurst)
	p.serve(be, b, func(g int) bool { return p.owed(g) }, p.takeForOwed)
	p.serve(be, b, func(int) bool { return true }, nil)
	if p.wanting.Len(int(be)) > 0 {
		p.quanta.Expire(p.view, now, b, func(c cs.CPU) { p.turn(c, b) })
	}
}

func (p *Policy) owed(g int) bool { return p.groups[g].beyond() < 0 }

// beyond returns how many cores an instance has beyond its guarantee.
func (i *instance) beyond() int { return i.running - i.guaranteed }

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

// serve gives cores to the groups of a class that deserve one, one at a time
// each, in turns: idle cores, then those that take finds, until there are none.
func (p *Policy) serve(class cs.Class, b *cs.Batch, deserves func(g int) bool, take func(g int, b *cs.Batch) cs.CPU) {
	var next cs.Task
	for e := p.wanting.First(int(class)); e != cs.NoTask; e = next {
		next = p.wanting.Next(e)
		g := fromElement(e)
		if !deserves(g) {
			continue
		}
		c := p.idleFor(g)
		if c == cs.NoCPU && take != nil {
			c = take(g, b)
		}
		if c == cs.NoCPU || !p.give(c, g, b) {
			continue
		}
		if next == cs.NoTask && p.wanting.Has(e) {
			next = e // it was the last, and wants more
		}
	}
}

// idleFor returns an idle core that a kthread of g may use, or NoCPU.
func (p *Policy) idleFor(g int) cs.CPU {
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU; c = idle.Next(c + 1) {
		if p.canUse(g, c) {
			return c
		}
	}
	return cs.NoCPU
}

// canUse tells whether a kthread of g waits that may run on c. Most often all may.
func (p *Policy) canUse(g int, c cs.CPU) bool {
	t := p.waiting.First(g)
	for t != cs.NoTask && !p.view.Allowed(t, c) {
		t = p.waiting.Next(t)
	}
	return t != cs.NoTask
}

// give has a kthread of g run on c, and puts g behind all others that want cores.
// Until the result is known the core counts as g's.
func (p *Policy) give(c cs.CPU, g int, b *cs.Batch) bool {
	t := p.waiting.Take(p.view, g, c)
	if t == cs.NoTask {
		return false
	}
	p.own(c, g)
	p.wanting.Remove(element(g))
	p.want(g)
	b.Run(c, t)
	return true
}

// takeForOwed finds a core for g of an instance that has more than it is guaranteed:
// of best effort, else a burst core.
func (p *Policy) takeForOwed(g int, b *cs.Batch) cs.CPU {
	if c := p.surplus(g, b, cs.BestEffort); c != cs.NoCPU {
		return c
	}
	return p.surplus(g, b, cs.LatencyCritical)
}

// takeForBurst finds a core for g that best effort has beyond its guarantee.
func (p *Policy) takeForBurst(g int, b *cs.Batch) cs.CPU { return p.surplus(g, b, cs.BestEffort) }

// surplus returns the core, of those that taker can use, of the instance of a class
// that has the most beyond its guarantee, of these the one it has had longest, or NoCPU.
func (p *Policy) surplus(taker int, b *cs.Batch, class cs.Class) cs.CPU {
	found, most := cs.NoCPU, 0
	for i, g := range p.owner {
		c := cs.CPU(i)
		if g < 0 || p.groups[g].class != class || b.Names(c) || p.view.Running(c) == cs.NoTask {
			continue
		}
		extra := p.groups[g].beyond()
		more := extra > most || extra == most && found != cs.NoCPU && p.view.Since(c) < p.view.Since(found)
		if more && p.canUse(taker, c) {
			found, most = c, extra
		}
	}
	return found
}

// turn gives core c, which best effort has had for a quantum, to the next who
// waits, unless its owner is not above its guarantee.
func (p *Policy) turn(c cs.CPU, b *cs.Batch) {
	old := p.owner[c]
	if old < 0 || p.groups[old].class != cs.BestEffort {
		return
	}
	if s := &p.groups[old]; s.guaranteed > 0 && s.beyond() <= 0 {
		return
	}
	for e := p.wanting.First(int(cs.BestEffort)); e != cs.NoTask; e = p.wanting.Next(e) {
		if p.give(c, fromElement(e), b) {
			return
		}
	}
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	switch {
	case t.Task == cs.NoTask:
	case t.Result == cs.Complete:
		p.quanta.Began(p.view.Since(t.CPU))
	default:
		g := p.group(t.Task, p.view.Hints(t.Task), p.limitOf(t.Task))
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
		g = p.group(r, p.view.Hints(r), p.limitOf(r))
	}
	p.own(c, g)
}
