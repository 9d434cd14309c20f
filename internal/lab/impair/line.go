package impair

import "time"

// Counters of one direction. At any time
//
//	In + Duplicated = Out + Lost + QueueFull + Waiting
type Counters struct {
	In         uint64 `json:"in"`
	Out        uint64 `json:"out"`
	Lost       uint64 `json:"lost"`
	QueueFull  uint64 `json:"queue_full"`
	Duplicated uint64 `json:"duplicated"`
	Held       uint64 `json:"held"`
	Corrupted  uint64 `json:"corrupted"`
	Waiting    uint64 `json:"waiting"`
}

// Line is one direction of a bad path, without clock or socket: frames go in
// with Push and come out with Pop when their time has come. Times are durations
// since any fixed instant and must not go back. Not for concurrent use.
type Line struct {
	plan   Direction
	seed   uint64
	dice   *dice
	queue  fifo    // in order of arrival, and so of due time
	held   []entry // frames waiting to be overtaken
	spare  [][]byte
	popped []byte        // of the last Pop; to be spare at the next
	idle   time.Duration // when the last bit so far has passed the link
	last   time.Duration // due time of the youngest frame in queue
	count  Counters
}

// entry is a waiting frame.
type entry struct {
	number uint64
	due    time.Duration
	left   int // of a held frame: how many must still overtake it
	frame  []byte
}

// NewLine returns an empty line, or what is wrong with the plan.
func NewLine(d Direction, seed uint64) (*Line, error) {
	d, err := d.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Line{plan: d, seed: seed, dice: newDice()}, nil
}

// Counters returns what has happened so far.
func (l *Line) Counters() Counters {
	c := l.count
	c.Waiting = uint64(l.waiting())
	return c
}

func (l *Line) waiting() int { return l.queue.len() + len(l.held) }

// Push puts a copy of a frame on the line.
func (l *Line) Push(now time.Duration, frame []byte) {
	number := l.count.In
	l.count.In++
	f := l.dice.fate(l.plan, l.seed, number, len(frame))
	if f.Duplicated {
		l.count.Duplicated++
	}
	if f.Lost { // both of them
		l.count.Lost++
		if f.Duplicated {
			l.count.Lost++
		}
		return
	}
	l.enter(now, number, frame, f)
	if f.Duplicated { // the second is never held
		l.enter(now, number, frame, Fate{CorruptBit: -1, Jitter: f.Jitter})
	}
}

// enter lets one copy wait.
func (l *Line) enter(now time.Duration, number uint64, frame []byte, f Fate) {
	if l.waiting() >= l.plan.Queue {
		l.count.QueueFull++
		return
	}
	e := entry{number: number, due: l.passed(now, len(frame)) + l.plan.Delay + f.Jitter, frame: l.copyOf(frame)}
	if f.CorruptBit >= 0 {
		l.count.Corrupted++
		e.frame[f.CorruptBit/8] ^= 1 << (f.CorruptBit % 8)
	}
	if f.Held {
		l.count.Held++
		e.due += l.plan.ReorderWait
		e.left = l.plan.ReorderDepth
		l.held = append(l.held, e)
		return
	}
	e.due = max(e.due, l.last)
	l.last = e.due
	l.queue.push(e)
}

// passed returns when a frame's last bit has passed the link.
func (l *Line) passed(now time.Duration, size int) time.Duration {
	if l.plan.Rate == 0 {
		return now
	}
	bits := time.Duration(size) * 8
	l.idle = max(l.idle, now) + bits*time.Second/time.Duration(l.plan.Rate)
	return l.idle
}

// Pop returns a frame whose time has come, valid until the next Pop.
func (l *Line) Pop(now time.Duration) (frame []byte, ok bool) {
	if l.popped != nil {
		l.spare = append(l.spare, l.popped)
		l.popped = nil
	}
	e, ok := l.take(now)
	if !ok {
		return nil, false
	}
	l.count.Out++
	l.popped = e.frame
	return e.frame, true
}

func (l *Line) take(now time.Duration) (entry, bool) {
	for i, e := range l.held {
		if e.left == 0 || e.due <= now {
			l.held = append(l.held[:i], l.held[i+1:]...)
			return e, true
		}
	}
	if l.queue.len() == 0 || l.queue.first().due > now {
		return entry{}, false
	}
	e := l.queue.pop()
	for i := range l.held {
		if l.held[i].number < e.number {
			l.held[i].left--
		}
	}
	return e, true
}

// Next returns when Pop will have a frame, if none is pushed before.
func (l *Line) Next() (at time.Duration, ok bool) {
	if l.queue.len() > 0 {
		at, ok = l.queue.first().due, true
	}
	for _, e := range l.held {
		if e.left == 0 {
			return 0, true
		}
		if !ok || e.due < at {
			at, ok = e.due, true
		}
	}
	return at, ok
}

// copyOf copies a frame into a spare buffer.
func (l *Line) copyOf(frame []byte) []byte {
	var b []byte
	if n := len(l.spare); n > 0 {
		b, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	return append(b[:0], frame...)
}
