package sim

import (
	"errors"

	cs "junction/coresched"
	"junction/coresched/hints"
)

// Work classes of a program that gives hints.
const (
	urgentWork = 1
	longWork   = 2
)

// program is an instance's own table of hints, which it writes as a real program
// would, and which is read as a real one's.
type program struct {
	table  *hints.Table
	reader *hints.Reader
	said   map[int]*hints.Said // by thread
}

// allItems is how many hints all programs of a run have room for, as far as each has
// some: thousands of programs with the largest of tables do not fit into memory.
const (
	allItems = 1 << 20
	minItems = 1 << 8
)

// newProgram returns one of several.
func newProgram(several int) (*program, error) {
	items := min(max(allItems/several, minItems), hints.MaxItems)
	table, reader, err := hints.Local(hints.Options{Items: items})
	if err != nil {
		return nil, err
	}
	p := &program{table, reader, map[int]*hints.Said{}}
	return p, errors.Join(table.SetClass(urgentWork, hints.Class{QoS: hints.Latency}), table.SetClass(longWork, hints.Class{QoS: hints.Batch}))
}

// tell says what request r is that a thread is woken for, and returns what policies
// hear of it. A thread for which there is no room says nothing.
func (p *program) tell(thread int, r *request, base cs.Hints, now cs.Time) (cs.Hints, error) {
	it, err := p.table.Item(thread)
	if errors.Is(err, hints.ErrFull) {
		return base, nil
	}
	if err != nil {
		return base, err
	}
	h := hints.Hint{Class: urgentWork}
	if r.job.Long {
		h.Class = longWork
	}
	if r.job.Within > 0 {
		h.Deadline = r.arrived + r.job.Within
	}
	it.Set(h)
	said := p.said[thread]
	if said == nil {
		said = &hints.Said{}
		p.said[thread] = said
	}
	p.reader.Read(thread, said)
	return said.Over(base, now), nil
}
