// Package cfs is a fair policy: each task advances a virtual runtime, the
// slower the greater its weight, and who is furthest behind runs next (after
// Linux's completely fair scheduler, with one queue for all cores).
package cfs

import (
	"math"
	"time"

	cs "junction/coresched"
	"junction/coresched/policies/runq"
)

// Options are the policy's parameters. Zero values mean the defaults, which
// are Linux's for one core.
type Options struct {
	// Latency is the time in which each task that can run is to run once.
	Latency cs.Time
	// Granularity is how long a task runs at least before it makes way.
	Granularity cs.Time
}

// Defaults of Options.
const (
	Latency     = 6 * time.Millisecond
	Granularity = 750 * time.Microsecond
)

const nice0 = 1024

// Policy is cfs.
type Policy struct {
	opts    Options
	view    *cs.View
	waiting runq.Heap // by virtual runtime
	tasks   []entity
	least   float64 // virtual runtime that newcomers begin at; never falls
	load    float64 // weight of all that can run
	next    cs.Time // nobody has to make way before
}

type entity struct {
	known    bool
	runnable bool
	weight   float64
	virtual  float64 // in nanoseconds at weight nice0
	counted  cs.Time // runtime that is in virtual
	until    cs.Time // and up to when that was
}

// New returns the policy.
func New(o Options) *Policy {
	if o.Latency <= 0 {
		o.Latency = Latency
	}
	if o.Granularity <= 0 {
		o.Granularity = Granularity
	}
	return &Policy{opts: o}
}

// Weight is what Linux gives a nice value: a quarter more for each step.
func Weight(nice int8) float64 { return nice0 * math.Pow(1.25, -float64(nice)) }

// Traits implements coresched.Policy.
func (p *Policy) Traits() cs.Traits { return cs.Traits{Name: "cfs", Group: cs.Grouped} }

// Start implements coresched.Policy.
func (p *Policy) Start(v *cs.View) { *p = Policy{opts: p.opts, view: v} }

// Handle implements coresched.Policy.
func (p *Policy) Handle(m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	for int(m.Task) >= len(p.tasks) {
		p.tasks = append(p.tasks, entity{})
	}
	e := &p.tasks[m.Task]
	p.waiting.Remove(m.Task)
	if m.Type == cs.TaskNew || !e.known {
		p.leave(e)
		*e = entity{known: true, virtual: p.least, counted: m.Runtime, weight: Weight(m.Hints.Nice)}
	}
	e.virtual += float64(m.Runtime-e.counted) * nice0 / e.weight
	e.counted, e.until = m.Runtime, m.At
	if !m.Runnable {
		p.leave(e)
		e.known = m.Type != cs.TaskDead && m.Type != cs.TaskDeparted
		return
	}
	p.enter(e, m)
	if !m.OnCPU {
		p.waiting.Push(m.Task, int64(e.virtual))
		p.next = 0
	}
}

// leave takes e out of those that can run.
func (p *Policy) leave(e *entity) {
	if e.runnable {
		p.load -= e.weight
		e.runnable = false
	}
}

// enter puts e among those that can run. Who slept is not given all that it
// missed, but half a latency.
func (p *Policy) enter(e *entity, m *cs.Message) {
	if !e.runnable {
		e.virtual = max(e.virtual, p.least-float64(p.opts.Latency)/2)
	} else {
		p.load -= e.weight
	}
	e.weight = Weight(m.Hints.Nice)
	e.runnable = true
	p.load += e.weight
}

// Schedule implements coresched.Policy.
func (p *Policy) Schedule(_ cs.CPU, now cs.Time, b *cs.Batch) {
	idle := p.view.Idle()
	for c := idle.Next(0); c != cs.NoCPU && p.waiting.Len() > 0; c = idle.Next(c + 1) {
		if t := p.waiting.Take(p.view, c); t != cs.NoTask {
			b.Run(c, t)
		}
	}
	p.advance(now)
	if p.waiting.Len() == 0 {
		return
	}
	if now >= p.next {
		p.rotate(now, b)
	}
	b.Again(p.next)
}

// advance raises the least virtual runtime to that of who is furthest behind.
func (p *Policy) advance(now cs.Time) {
	behind := math.Inf(1)
	if t, _ := p.waiting.First(); t != cs.NoTask {
		behind = p.tasks[t].virtual
	}
	cpus := p.view.CPUs()
	for c := cpus.Next(0); c != cs.NoCPU; c = cpus.Next(c + 1) {
		if t := p.view.Running(c); t != cs.NoTask {
			behind = min(behind, p.virtual(t, c, now))
		}
	}
	if !math.IsInf(behind, 1) {
		p.least = max(p.least, behind)
	}
}

// virtual returns the virtual runtime of t, which runs on c.
func (p *Policy) virtual(t cs.Task, c cs.CPU, now cs.Time) float64 {
	e := &p.tasks[t]
	return e.virtual + float64(now-max(p.view.Since(c), e.until))*nice0/e.weight
}

// rotate takes cores from those that had their slice and are ahead of who
// waits, and works out when to look again.
func (p *Policy) rotate(now cs.Time, b *cs.Batch) {
	p.next = now + p.opts.Latency
	cpus := p.view.CPUs()
	for c := cpus.Next(0); c != cs.NoCPU && p.waiting.Len() > 0; c = cpus.Next(c + 1) {
		t := p.view.Running(c)
		if t == cs.NoTask {
			continue
		}
		first := p.waiting.FirstFor(p.view, c)
		ahead := first != cs.NoTask && p.virtual(t, c, now) > p.tasks[first].virtual
		switch end := p.view.Since(c) + p.slice(t); {
		case end > now:
			p.next = min(p.next, end)
		case ahead:
			p.waiting.Remove(first)
			b.Run(c, first)
			p.next = min(p.next, now+p.slice(first))
		default:
			p.next = min(p.next, now+p.opts.Granularity)
		}
	}
}

// slice is t's part of the latency, by weight, on as many cores as there are.
func (p *Policy) slice(t cs.Task) cs.Time {
	part := float64(p.opts.Latency) * p.tasks[t].weight / p.load * float64(p.view.CPUs().Len())
	return max(p.opts.Granularity, min(cs.Time(part), p.opts.Latency))
}

// Done implements coresched.Policy.
func (p *Policy) Done(t *cs.Txn) {
	switch {
	case t.Task == cs.NoTask:
	case t.Result != cs.Complete:
		p.waiting.Push(t.Task, int64(p.tasks[t.Task].virtual))
	default:
		p.next = min(p.next, p.view.Since(t.CPU)+p.slice(t.Task))
	}
}
