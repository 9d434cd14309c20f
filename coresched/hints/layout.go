package hints

import (
	"errors"
	"math"
	"sync/atomic"

	cs "junction/coresched"
)

// Limits of a table.
const (
	// MaxItems is for how many threads a table has room at most.
	MaxItems = 16384
	// MaxClasses is how many work classes a table has at most.
	MaxClasses = 256
	// Probes is in how many places the item of a thread may be.
	Probes = 16
)

// Version is that of the layout.
const Version = 1

const (
	magic = 0x544e484a // "JHNT"
	name  = "junction-hints"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrTable: a descriptor that is no table, or parameters that make none.
	ErrTable = errors.New("not a table of hints")
	// ErrFull: no place is left for this thread; Release those of threads that
	// are gone, or make a larger table.
	ErrFull = errors.New("table of hints is full")
	// ErrNone: the process has no table.
	ErrNone = errors.New("process has no table of hints")
)

// QoS is how urgent a kind of work is.
type QoS uint32

// The qualities of service.
const (
	// Default: what the thread's own scheduling class says.
	Default QoS = iota
	// Latency: someone waits for it.
	Latency
	// Batch: it may wait.
	Batch
)

// Class is a kind of work.
type Class struct {
	QoS QoS
	// Period, if it is not 0, gives a job without a Deadline one: so long after
	// its thread woke.
	Period cs.Time
}

// Hint is what a program says of one thread.
type Hint struct {
	// Deadline of the job at hand by CLOCK_MONOTONIC; 0: none.
	Deadline cs.Time
	// Class is the number of the work class.
	Class uint32
	// Idle: the thread has nothing to do, though it runs (it looks for work).
	// It is given no core until that changes.
	Idle bool
}

// flagIdle of item.flags.
const flagIdle = 1

type header struct {
	magic, version, items, classes uint32
	_                              [48]byte
}

type class struct {
	count  atomic.Uint32
	qos    atomic.Uint32
	period atomic.Uint64
	_      [16]byte
}

type item struct {
	count    atomic.Uint32
	tid      atomic.Uint32
	class    atomic.Uint32
	flags    atomic.Uint32
	deadline atomic.Uint64
	_        [40]byte // to a cache line
}

// memory is a table, wherever it is.
type memory struct {
	classes []class
	items   []item
}

// place returns the i-th place of a thread's item.
func (m *memory) place(tid uint32, i int) *item {
	return &m.items[(tid+uint32(i))&uint32(len(m.items)-1)]
}

// Said is a hint together with its work class, as a reader found them.
type Said struct {
	Hint
	Work Class
}

// Over returns what policies are told of a task that has hints h by itself and
// woke for its job at the given time.
func (s *Said) Over(h cs.Hints, woke cs.Time) cs.Hints {
	switch s.Work.QoS {
	case Latency:
		h.Class = cs.LatencyCritical
	case Batch:
		h.Class = cs.BestEffort
	}
	switch {
	case s.Deadline > 0:
		h.Deadline = s.Deadline
	case s.Work.Period > 0 && woke <= math.MaxInt64-s.Work.Period:
		h.Deadline = woke + s.Work.Period
	}
	return h
}
