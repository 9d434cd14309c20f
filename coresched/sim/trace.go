package sim

import (
	"bufio"
	"strconv"

	cs "junction/coresched"
)

// tracer writes a line for each event: the time in nanoseconds, what happened,
// and to whom.
type tracer struct {
	out  *bufio.Writer
	line []byte
}

func (t *tracer) begin(now cs.Time, what string) {
	t.line = strconv.AppendInt(t.line[:0], int64(now), 10)
	t.line = append(t.line, ' ')
	t.line = append(t.line, what...)
}

func (t *tracer) field(name string, v int64) {
	t.line = append(t.line, name...)
	t.line = strconv.AppendInt(t.line, v, 10)
}

// end writes the line. The writer keeps the first error until it is flushed.
func (t *tracer) end() { _, _ = t.out.Write(append(t.line, '\n')) }

func (t *tracer) arrive(now cs.Time, instance int, j Job) {
	if t.out == nil {
		return
	}
	t.begin(now, "ARRIVE")
	t.field(" instance=", int64(instance))
	t.field(" service=", int64(j.Service))
	t.end()
}

func (t *tracer) done(now cs.Time, task cs.Task, took cs.Time) {
	if t.out == nil {
		return
	}
	t.begin(now, "DONE")
	t.field(" task=", int64(task))
	t.field(" took=", int64(took))
	t.end()
}

func (t *tracer) message(now cs.Time, m *cs.Message) {
	if t.out == nil {
		return
	}
	t.begin(now, m.Type.String())
	t.field(" task=", int64(m.Task))
	t.field(" seq=", int64(m.Seq))
	t.field(" cpu=", int64(m.CPU))
	t.field(" runtime=", int64(m.Runtime))
	t.end()
}

func (t *tracer) txn(now cs.Time, x *cs.Txn) {
	if t.out == nil {
		return
	}
	t.begin(now, "TXN")
	t.field(" cpu=", int64(x.CPU))
	t.field(" task=", int64(x.Task))
	t.field(" seq=", int64(x.TaskSeq))
	t.line = append(append(t.line, ' '), x.Result.String()...)
	t.end()
}
