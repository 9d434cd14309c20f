package portmap

import (
	"container/heap"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Advance tells the time, on a clock that does not go back: EINVAL if it
// seems to. Ports whose TIME_WAIT has passed are free.
func (m *Map) Advance(now time.Duration) error {
	if now < m.now {
		return failure(unix.EINVAL, "the time goes back from %v to %v", m.now, now)
	}
	m.now = now
	for len(m.waits) > 0 && m.waits[0].until <= now {
		s := heap.Pop(&m.waits).(*socket)
		s.owner.waiting--
		m.leavePorts(s)
	}
	return nil
}

// Deadline is the time at which the next Advance is due; false if none is.
func (m *Map) Deadline() (time.Duration, bool) {
	if len(m.waits) == 0 {
		return 0, false
	}
	return m.waits[0].until, true
}

// waitQueue is a heap of the sockets in TIME_WAIT by their ends. Ends and
// sequence numbers order them completely, so what Advance does is determined.
type waitQueue []*socket

func (q *waitQueue) push(s *socket) { heap.Push(q, s) }

// drop removes an instance's sockets.
func (q *waitQueue) drop(inst *instance) {
	if inst.waiting == 0 {
		return
	}
	*q = slices.DeleteFunc(*q, func(s *socket) bool { return s.owner == inst })
	heap.Init(q)
}

// Len is for container/heap.
func (q waitQueue) Len() int { return len(q) }

// Less is for container/heap.
func (q waitQueue) Less(i, j int) bool {
	if q[i].until != q[j].until {
		return q[i].until < q[j].until
	}
	return q[i].seq < q[j].seq
}

// Swap is for container/heap.
func (q waitQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push is for container/heap.
func (q *waitQueue) Push(x any) { *q = append(*q, x.(*socket)) }

// Pop is for container/heap.
func (q *waitQueue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return s
}
