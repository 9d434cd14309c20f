// Package runq has the queues of tasks that policies are made of. None of its
// operations allocates once a queue has seen its tasks.
package runq

import cs "junction/coresched"

// Lists are first-in-first-out queues, numbered from 0, of which a task is in
// one at most.
type Lists struct {
	lists []list
	links []link // by task
}

type list struct {
	first, last cs.Task
	n           int
}

type link struct {
	prev, next cs.Task
	in         int32 // the list's number + 1
}

// NewLists returns n empty queues.
func NewLists(n int) *Lists { return &Lists{lists: make([]list, n)} }

// Grow makes the queues n at least.
func (l *Lists) Grow(n int) {
	for len(l.lists) < n {
		l.lists = append(l.lists, list{})
	}
}

// Len returns how many tasks are in queue q.
func (l *Lists) Len(q int) int { return l.lists[q].n }

// First returns the first task of queue q, or NoTask.
func (l *Lists) First(q int) cs.Task { return l.lists[q].first }

// Next returns the task behind t, which is in a queue, or NoTask.
func (l *Lists) Next(t cs.Task) cs.Task { return l.links[t].next }

// Has tells whether t is in a queue.
func (l *Lists) Has(t cs.Task) bool { return int(t) < len(l.links) && l.links[t].in != 0 }

// In returns the queue that t is in; ok is false if it is in none.
func (l *Lists) In(t cs.Task) (q int, ok bool) {
	if !l.Has(t) {
		return 0, false
	}
	return int(l.links[t].in) - 1, true
}

// PushBack puts t, which is in no queue, at the end of q.
func (l *Lists) PushBack(q int, t cs.Task) { l.insert(q, t, l.lists[q].last, cs.NoTask) }

// PushFront puts t, which is in no queue, before all others of q.
func (l *Lists) PushFront(q int, t cs.Task) { l.insert(q, t, cs.NoTask, l.lists[q].first) }

func (l *Lists) insert(q int, t, prev, next cs.Task) {
	for int(t) >= len(l.links) {
		l.links = append(l.links, link{})
	}
	l.links[t] = link{prev, next, int32(q) + 1}
	l.join(q, prev, t)
	l.join(q, t, next)
	l.lists[q].n++
}

// join makes a and b neighbours; NoTask is what lies beyond either end.
func (l *Lists) join(q int, a, b cs.Task) {
	if a == cs.NoTask {
		l.lists[q].first = b
	} else {
		l.links[a].next = b
	}
	if b == cs.NoTask {
		l.lists[q].last = a
	} else {
		l.links[b].prev = a
	}
}

// Remove takes t out of the queue that it is in, if it is in one.
func (l *Lists) Remove(t cs.Task) {
	if !l.Has(t) {
		return
	}
	k := l.links[t]
	l.join(int(k.in-1), k.prev, k.next)
	l.lists[k.in-1].n--
	l.links[t] = link{}
}

// Take removes and returns the first task of q that may run on c, or NoTask.
func (l *Lists) Take(v *cs.View, q int, c cs.CPU) cs.Task {
	t := l.First(q)
	for t != cs.NoTask && !v.Allowed(t, c) {
		t = l.Next(t)
	}
	l.Remove(t)
	return t
}

// Note keeps queue q true to message m: a task that waits for a core because of
// it goes to the end, one that waited keeps its place, any other leaves.
func (l *Lists) Note(q int, m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	waits := m.Runnable && !m.OnCPU
	if waits && l.Has(m.Task) && int(l.links[m.Task].in) == q+1 {
		return
	}
	l.Remove(m.Task)
	if waits {
		l.PushBack(q, m.Task)
	}
}
