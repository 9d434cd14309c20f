package impair

// fifo is a queue that reuses its memory.
type fifo struct {
	entries []entry // length is zero or a power of two
	head    int     // index of the first, before masking
	tail    int     // one behind the last, before masking
}

func (q *fifo) len() int { return q.tail - q.head }

func (q *fifo) at(i int) *entry { return &q.entries[i&(len(q.entries)-1)] }

// first needs a queue that is not empty, as pop does.
func (q *fifo) first() *entry { return q.at(q.head) }

func (q *fifo) pop() entry {
	e := *q.first()
	*q.first() = entry{}
	q.head++
	return e
}

func (q *fifo) push(e entry) {
	if q.len() == len(q.entries) {
		q.grow()
	}
	*q.at(q.tail) = e
	q.tail++
}

func (q *fifo) grow() {
	entries := make([]entry, max(16, 2*len(q.entries)))
	n := q.len()
	for i := range n {
		entries[i] = *q.at(q.head + i)
	}
	q.entries, q.head, q.tail = entries, 0, n
}
