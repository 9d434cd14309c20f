package coresched

// queue carries messages to one agent. It holds them in the order of their
// sequence numbers, without gaps, or has overflowed.
type queue struct {
	ring     []Message // a power of two
	head     uint32    // next to read
	tail     uint32    // next to write
	seq      Seq       // of the last message posted, also when it was lost
	overflow bool
	lost     uint64
}

func newQueue(length int) queue {
	size := 1
	for size < length {
		size *= 2
	}
	return queue{ring: make([]Message, size)}
}

func (q *queue) post(m *Message) {
	q.seq = q.seq.next()
	if q.overflow || q.tail-q.head == uint32(len(q.ring)) {
		q.overflow = true
		q.lost++
		return
	}
	m.Agent = q.seq
	q.ring[q.tail&uint32(len(q.ring)-1)] = *m
	q.tail++
}

func (q *queue) receive(buf []Message) (n int, err error) {
	if q.overflow {
		return 0, ErrOverflow
	}
	for ; n < len(buf) && q.head != q.tail; n++ {
		buf[n] = q.ring[q.head&uint32(len(q.ring)-1)]
		q.head++
	}
	return n, nil
}

// reset empties the queue for an agent that begins anew.
func (q *queue) reset() { q.head, q.overflow = q.tail, false }
