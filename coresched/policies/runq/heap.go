package runq

import cs "junction/coresched"

// Heap is a queue of tasks by key, the least first; of equal keys the one that
// was put in first.
type Heap struct {
	items []item
	where []int32 // by task; place in items + 1
	count uint64
}

type item struct {
	key   int64
	order uint64
	task  cs.Task
}

// Len returns how many tasks are in the heap.
func (h *Heap) Len() int { return len(h.items) }

// First returns the task with the least key and its key, or NoTask.
func (h *Heap) First() (cs.Task, int64) {
	if len(h.items) == 0 {
		return cs.NoTask, 0
	}
	return h.items[0].task, h.items[0].key
}

// Has tells whether t is in the heap.
func (h *Heap) Has(t cs.Task) bool { return int(t) < len(h.where) && h.where[t] != 0 }

// Push puts t, which is not in the heap, into it.
func (h *Heap) Push(t cs.Task, key int64) {
	for int(t) >= len(h.where) {
		h.where = append(h.where, 0)
	}
	h.count++
	h.items = append(h.items, item{key, h.count, t})
	h.where[t] = int32(len(h.items))
	h.up(len(h.items) - 1)
}

// Remove takes t out of the heap, if it is in it.
func (h *Heap) Remove(t cs.Task) {
	if !h.Has(t) {
		return
	}
	i, last := int(h.where[t])-1, len(h.items)-1
	h.swap(i, last)
	h.items = h.items[:last]
	h.where[t] = 0
	if i < last {
		h.down(i)
		h.up(i)
	}
}

// Take removes and returns the first task that may run on c, or NoTask.
func (h *Heap) Take(v *cs.View, c cs.CPU) cs.Task {
	t := h.FirstFor(v, c)
	h.Remove(t)
	return t
}

// FirstFor returns the first task that may run on c, or NoTask. It looks at all
// only if the first of all may not.
func (h *Heap) FirstFor(v *cs.View, c cs.CPU) cs.Task {
	if len(h.items) == 0 || v.Allowed(h.items[0].task, c) {
		t, _ := h.First()
		return t
	}
	found := -1
	for i := range h.items {
		if (found < 0 || h.less(i, found)) && v.Allowed(h.items[i].task, c) {
			found = i
		}
	}
	if found < 0 {
		return cs.NoTask
	}
	return h.items[found].task
}

func (h *Heap) less(i, j int) bool {
	a, b := &h.items[i], &h.items[j]
	return a.key < b.key || a.key == b.key && a.order < b.order
}

func (h *Heap) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.where[h.items[i].task], h.where[h.items[j].task] = int32(i+1), int32(j+1)
}

func (h *Heap) up(i int) {
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h *Heap) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.items); child++ {
			if h.less(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}
