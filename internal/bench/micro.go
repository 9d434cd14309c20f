package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"junction/internal/bench/clients"
)

// operation is what guest/micro.c measures, and what is wanted of the
// in-process engine.
type operation struct {
	name      string  // micro's
	metric    string  // if it is not the name
	byNative  float64 // at most; 0: no target
	bySystrap float64
}

// in returns the operation's metric.
func (o operation) in() string { return cmp.Or(o.metric, o.name) + "_ns" }

// operations run with all CPUs of the machine, in this order.
var operations = []operation{
	{name: "getppid", byNative: 2, bySystrap: 0.1},
	{name: "clock_gettime", byNative: 1.5},
	{name: "pipe", byNative: 2},
	{name: "read_4k", byNative: 3},
	{name: "stat", byNative: 3},
	{name: "open_close", byNative: 3},
	{name: "epoll_wait", byNative: 3},
	{name: "handoff_futex", byNative: 3},
	{name: "handoff_pipe", byNative: 3},
	{name: "signal", byNative: 3},
	{name: "mmap", byNative: 3},
	{name: "fault", byNative: 3},
	{name: "thread", byNative: 3},
	{name: "fork_exec"},
	{name: "spawn"},
}

// switches run with everything, program and instance, on one CPU: what one
// thread hands to another is then a switch between the two.
var switches = []operation{
	{name: "handoff_futex", metric: "switch_futex", byNative: 1},
	{name: "handoff_pipe", metric: "switch_pipe", byNative: 1},
}

// engineOnly is an instance without a NIC, named by its engine.
type engineOnly struct{ Junction }

// Name implements System.
func (e engineOnly) Name() string { return e.Engine }

func microSystrap(o Options) System {
	return engineOnly{Junction{Path: o.JunctionRun, Engine: "systrap"}}
}

func microInproc(o Options) System {
	return engineOnly{Junction{Path: o.JunctionRun, Engine: "inproc"}}
}

var errOperations = errors.New("micro did not measure what it was asked for")

// runMicro measures operations of the kernel, by a program that takes the time
// itself.
func runMicro(ctx context.Context, r *runner) error {
	micro, err := buildGuest(ctx, r.dir, "micro")
	if err != nil {
		return err
	}
	data := filepath.Join(r.dir, "data")
	if err := os.WriteFile(data, make([]byte, 8192), 0o644); err != nil {
		return err
	}
	cpus, err := allowedCPUs()
	if err != nil {
		return err
	}
	batch, batches := 10*time.Millisecond, 9
	if r.o.Quick {
		batch, batches = 100*time.Microsecond, 1
	}
	argv := []string{micro, strconv.FormatInt(batch.Microseconds(), 10), strconv.Itoa(batches), data}
	r.c.Bases = append(r.c.Bases, microSystrap(r.o).Name())
	err = r.rounds(ctx, func(ctx context.Context, sys System) error {
		if err := r.learnMode(ctx, sys); err != nil {
			return err
		}
		if err := r.measureMicro(ctx, sys, argv, operations, -1); err != nil {
			return err
		}
		return r.measureMicro(ctx, sys, argv, switches, cpus[0])
	})
	r.microTargets(operations)
	r.microTargets(switches)
	return err
}

// measureMicro has the operations measured on one CPU, or any if it is negative.
func (r *runner) measureMicro(ctx context.Context, sys System, argv []string, ops []operation, cpu int) error {
	p := Program{Argv: slices.Clone(argv)}
	for _, o := range ops {
		p.Argv = append(p.Argv, o.name)
	}
	next := 0
	_, err := r.lines(ctx, sys, p, cpu, func(line string, _ int) error {
		name, ns, err := clients.ParseMicro(line)
		if err != nil {
			return err
		}
		if next >= len(ops) || name != ops[next].name {
			return fmt.Errorf("%w: %.40q", errOperations, name)
		}
		r.c.add(sys.Name(), ops[next].in(), Lower, ns)
		next++
		return nil
	})
	if err == nil && next < len(ops) {
		err = fmt.Errorf("%w: no %s", errOperations, ops[next].name)
	}
	return err
}

// microTargets notes what is wanted.
func (r *runner) microTargets(ops []operation) {
	inproc, systrap := microInproc(r.o).Name(), microSystrap(r.o).Name()
	for _, o := range ops {
		if o.byNative > 0 {
			r.c.target(o.in(), Target{System: inproc, To: Native{}.Name(), AtMost: o.byNative})
		}
		if o.bySystrap > 0 {
			r.c.target(o.in(), Target{System: inproc, To: systrap, AtMost: o.bySystrap})
		}
	}
}
