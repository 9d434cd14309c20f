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
	said   map[cs.Task]*hints.Said
}

func newProgram() (*program, error) {
	table, reader, err := hints.Local(hints.Options{Items: hints.MaxItems})
	if err != nil {
		return nil, err
	}
	p := &program{table, reader, map[cs.Task]*hints.Said{}}
	return p, errors.Join(table.SetClass(urgentWork, hints.Class{QoS: hints.Latency}), table.SetClass(longWork, hints.Class{QoS: hints.Batch}))
}

// tell says what request r is that task t is woken for, and returns what policies
// hear of it. A task for which there is no room says nothing.
func (p *program) tell(t cs.Task, r *request, base cs.Hints, now cs.Time) (cs.Hints, error) {
	it, err := p.table.Item(int(t))
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
	said := p.said[t]
	if said == nil {
		said = &hints.Said{}
		p.said[t] = said
	}
	p.reader.Read(int(t), said)
	return said.Over(base, now), nil
}
