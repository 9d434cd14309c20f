package ias

import (
	"cmp"

	cs "junction/coresched"
)

// name is an instance's.
type name struct {
	group uint32
	class cs.Class
}

// instance is what has a guarantee: one group as a rule.
type instance struct {
	name
	guaranteed int
	delay      cs.Time
	running    int
	groups     int
}

// limit is which of the enclave's cores some tasks may run on.
type limit struct {
	cpus   cs.CPUSet
	groups int
}

// key tells groups apart. Without a limit all cores may be used.
type key struct {
	*instance
	*limit
}

// group is those tasks of an instance that may run on the same cores.
type group struct {
	key
	tasks   int
	running int
}

// group returns the number of the group of task t with hints h and a limit, or nil.
func (p *Policy) group(t cs.Task, h *cs.Hints, l *limit) int {
	n, g := name{h.Group, h.Class}, p.groupOf(t)
	if g < 0 || p.groups[g].name != n || p.groups[g].limit != l {
		g = p.groupFor(key{p.instance(n), l})
	}
	i := p.groups[g].instance
	i.guaranteed, i.delay = int(h.Guaranteed), cmp.Or(h.Delay, p.opts.Delay)
	return g
}

func (p *Policy) instance(n name) *instance {
	i := p.instances[n]
	if i == nil {
		i = &instance{name: n}
		p.instances[n] = i
	}
	return i
}

func (p *Policy) groupFor(k key) int {
	g, ok := p.numbers[k]
	if !ok {
		g = p.number()
		p.numbers[k], p.groups[g] = g, group{key: k}
		k.instance.groups++
		if k.limit != nil {
			k.limit.groups++
		}
	}
	return g
}

// groupOf returns the group of a task that is known, or -1.
func (p *Policy) groupOf(t cs.Task) int {
	if int(t) >= len(p.of) {
		return -1
	}
	return p.of[t] - 1
}

// limitOf returns the limit of a task that is known, or nil.
func (p *Policy) limitOf(t cs.Task) *limit {
	if g := p.groupOf(t); g >= 0 {
		return p.groups[g].limit
	}
	return nil
}

// readLimit finds out on which cores a task may run, or nil: on all.
func (p *Policy) readLimit(t cs.Task) *limit {
	var cpus cs.CPUSet
	all := p.view.CPUs()
	for c := all.Next(0); c != cs.NoCPU; c = all.Next(c + 1) {
		if p.view.Allowed(t, c) {
			cpus.Add(c)
		}
	}
	if cpus == *all {
		return nil
	}
	l := p.limits[cpus]
	if l == nil {
		l = &limit{cpus: cpus}
		p.limits[cpus] = l
	}
	return l
}

// number returns one for a new group.
func (p *Policy) number() (g int) {
	if last := len(p.free) - 1; last >= 0 {
		g, p.free = p.free[last], p.free[:last]
		return g
	}
	p.groups = append(p.groups, group{})
	p.waiting.Grow(len(p.groups))
	return len(p.groups) - 1
}

// join notes that task t is of group g; -1: it has gone.
func (p *Policy) join(t cs.Task, g int) {
	for int(t) >= len(p.of) {
		p.of = append(p.of, 0)
	}
	old := p.of[t] - 1
	if p.of[t] = g + 1; old == g {
		return
	}
	if g >= 0 {
		p.groups[g].tasks++
	}
	if old >= 0 {
		p.groups[old].tasks--
		p.retire(old)
	}
}

// Remembered returns of how many instances the policy knows, of how many sets of
// cores, and of how many groups it knows or has known at one time.
func (p *Policy) Remembered() (instances, limits, groups int) {
	return len(p.instances), len(p.limits), len(p.groups)
}

// retire forgets group g if nothing is left of it, and what it was the last of.
func (p *Policy) retire(g int) {
	s := &p.groups[g]
	if s.tasks > 0 || s.running > 0 {
		return
	}
	delete(p.numbers, s.key)
	p.free = append(p.free, g)
	if s.instance.groups--; s.instance.groups == 0 {
		delete(p.instances, s.name)
	}
	if s.limit == nil {
		return
	}
	if s.limit.groups--; s.limit.groups == 0 {
		delete(p.limits, s.cpus)
	}
}
