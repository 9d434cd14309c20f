package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"time"

	cs "junction/coresched"
	"junction/coresched/plugin"
	"junction/internal/lab"
)

// What is measured without any thread or instance.
const (
	caseMessages = "sched-messages"
	caseCommit   = "sched-commit"
)

// series is a name in tables that runs no program.
type series string

// Name implements System.
func (s series) Name() string { return string(s) }

func (series) prepare(*lab.Lab, Program) (*plan, error) { return nil, errNoPrograms }

// published are figures of others, of other hardware, to stand beside ours.
type published struct {
	series
	source string
	values map[string]float64 // by metric; lower is better
}

// report adds the figures to a round.
func (p published) report(c *Case) {
	c.Modes[p.Name()] = "published, other hardware: " + p.source
	for _, m := range slices.Sorted(maps.Keys(p.values)) {
		c.add(p.Name(), m, Lower, p.values[m])
	}
}

const ghostTable = "ghOSt, SOSP 2021, table 3; a kernel of its own, agents that spin"

// agent is a policy in a process of its own.
type agent struct {
	series
	policy string        // path of junction_policy
	spin   time.Duration // for how long it looks for work before it sleeps
}

func agents(o Options) []System {
	policy := besideOf(o.JunctionRun, "junction_policy")
	return []System{
		agent{"spinning", policy, time.Hour}, agent{"sleeping", policy, 0},
		published{"ghOSt, global agent", ghostTable, map[string]float64{"delivery_p50_us": 0.265}},
		published{"ghOSt, local agent", ghostTable, map[string]float64{"delivery_p50_us": 0.725}},
	}
}

// runMessages measures what it takes to reach a policy, and to have it decide.
func runMessages(ctx context.Context, r *runner) error {
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		if p, ok := sys.(published); ok {
			p.report(r.c)
			return nil
		}
		a := sys.(agent)
		delivery, decision, err := a.measure(ctx, r.length(time.Second))
		if err != nil {
			return err
		}
		r.addQuantiles(a.Name(), "delivery", delivery)
		r.addQuantiles(a.Name(), "decision", decision)
		return nil
	})
}

// length is that of a measurement, or a tenth of it with Quick.
func (r *runner) length(d time.Duration) time.Duration {
	if r.o.Quick {
		return d / 10
	}
	return d
}

// addQuantiles adds what a thing took, in microseconds. On a machine with much
// else to do the lowest tenth says more of the thing than the median.
func (r *runner) addQuantiles(system, what string, took []time.Duration) {
	us := make([]float64, len(took))
	for i, d := range took {
		us[i] = float64(d) / 1e3
	}
	for _, p := range []float64{10, 50, 99} {
		r.c.add(system, fmt.Sprintf("%s_p%.0f_us", what, p), Lower, Percentile(us, p))
	}
}

var errNothingSeen = errors.New("nothing was seen in time")

// measure has messages delivered, each read before the next, and a task that gives
// way get its core again by the policy's decision.
func (a agent) measure(ctx context.Context, length time.Duration) (delivery, decision []time.Duration, err error) {
	page, err := plugin.NewPage()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, page.Close()) }()
	m, err := cs.NewMachine(1)
	if err != nil {
		return nil, nil, err
	}
	e, err := m.NewEnclave(cs.FirstCPUs(1), cs.EnclaveOptions{Board: page})
	if err != nil {
		return nil, nil, err
	}
	process, err := plugin.Start(exec.CommandContext(ctx, a.policy, "sol", "--spin", a.spin.String()), page, nil, 0)
	if err != nil {
		return nil, nil, err
	}
	defer process.Kill()
	d, err := process.Attach(0, e)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, d.Close(0)) }()
	if err := d.Step(0); err != nil {
		return nil, nil, err
	}
	delivery, err = repeated(ctx, length, func() error { return ping(ctx, d) })
	if err != nil {
		return nil, nil, err
	}
	decision, err = decisions(ctx, length, m, e, d)
	return delivery, decision, err
}

// repeated does a thing again and again for a time, and returns what each took.
// What comes first, while all is cold, does not count.
func repeated(ctx context.Context, length time.Duration, do func() error) (took []time.Duration, err error) {
	const cold, most = 10, 1 << 20
	for end := time.Now().Add(length); len(took) < most && (time.Now().Before(end) || len(took) <= cold); {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		from := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(from))
	}
	return took[cold:], nil
}

// ping returns when a message has been read.
func ping(ctx context.Context, d *plugin.Driver) error {
	if err := d.Ping(); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if _, all, err := d.Progress(); all || err != nil {
			return err
		}
		const often = 1 << 16
		if n%often == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// decisions measures from a task's giving way to its having its core again. The
// driver sleeps while it waits.
func decisions(ctx context.Context, length time.Duration, m *cs.Machine, e *cs.Enclave, d *plugin.Driver) ([]time.Duration, error) {
	defer context.AfterFunc(ctx, d.Wake)()
	task, err := e.Enter(0, true, cs.Hints{})
	if err != nil {
		return nil, err
	}
	decided := func() error {
		for {
			if err := errors.Join(d.Step(0), ctx.Err()); err != nil {
				return err
			}
			if m.Running(0) == task {
				m.Actions()
				return nil
			}
			if err := d.Wait(); err != nil {
				return err
			}
		}
	}
	if err := decided(); err != nil {
		return nil, err
	}
	return repeated(ctx, length, func() error {
		if err := e.Yield(0, task); err != nil {
			return err
		}
		return decided()
	})
}

// group is how transactions are committed.
type group struct {
	series
	size int
	sync bool
}

func groups() []System {
	return []System{
		group{"single", 1, false}, group{"group of ten", 10, false}, group{"sync group of ten", 10, true},
		published{"ghOSt, single, remote", ghostTable, map[string]float64{commitMetric: 668}},
		published{"ghOSt, group of ten", ghostTable, map[string]float64{commitMetric: 3964}},
	}
}

const commitMetric = "commit_ns"

// runCommit measures the check of transactions and what they change, without what
// the kernel is then told.
func runCommit(ctx context.Context, r *runner) error {
	return r.rounds(ctx, func(_ context.Context, sys System) error {
		if p, ok := sys.(published); ok {
			p.report(r.c)
			return nil
		}
		g := sys.(group)
		c, err := newCommits(g.size, g.sync)
		if err != nil {
			return err
		}
		const batch = 1000
		n, from := 0, time.Now()
		for end := from.Add(r.length(time.Second)); time.Now().Before(end); n += batch {
			for range batch {
				c.turn()
			}
		}
		r.c.add(g.Name(), commitMetric, Lower, float64(time.Since(from).Nanoseconds())/float64(n))
		return c.check()
	})
}

// commits gives cores to tasks, one group of transactions after the other. Each
// group comes with the messages that make the next one possible.
type commits struct {
	machine *cs.Machine
	enclave *cs.Enclave
	sync    bool
	group   []cs.Txn
	buf     []cs.Message
}

func newCommits(n int, sync bool) (*commits, error) {
	m, err := cs.NewMachine(n)
	if err != nil {
		return nil, err
	}
	e, err := m.NewEnclave(cs.FirstCPUs(n), cs.EnclaveOptions{})
	if err != nil {
		return nil, err
	}
	if err := e.Attach(0, false); err != nil {
		return nil, err
	}
	e.Rescan(0, nil)
	c := &commits{m, e, sync, make([]cs.Txn, n), make([]cs.Message, 2*n)}
	for i := range c.group {
		task, err := e.Enter(0, true, cs.Hints{})
		if err != nil {
			return nil, err
		}
		c.group[i] = cs.Txn{CPU: cs.CPU(i), Task: task, TaskSeq: 1}
	}
	_, err = e.Receive(cs.NoCPU, c.buf)
	return c, err
}

// turn commits a group, and has its tasks give way.
func (c *commits) turn() {
	if c.sync {
		c.enclave.CommitSync(0, cs.NoCPU, c.group)
	} else {
		c.enclave.Commit(0, cs.NoCPU, c.group)
	}
	for i := range c.group {
		_ = c.enclave.Yield(0, c.group[i].Task)
	}
	n, _ := c.enclave.Receive(cs.NoCPU, c.buf)
	for i := range c.buf[:n] {
		c.group[i].TaskSeq = c.buf[i].Seq
	}
	c.machine.Actions()
}

// check says whether the last group passed.
func (c *commits) check() error {
	for i := range c.group {
		if c.group[i].Result != cs.Complete {
			return fmt.Errorf("transaction %d: %v", i, c.group[i].Result)
		}
	}
	return nil
}
