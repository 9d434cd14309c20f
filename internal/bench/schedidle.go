package bench

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"junction/internal/bench/actors"
	"junction/internal/bench/proctree"
	"junction/internal/monitor"
	"junction/internal/monitor/wire"
)

const caseIdle = "sched-idle"

// What is nearly idle, so many of them at once.
const (
	idleThreads   = series("threads")
	idleInstances = series("light instances")
)

func crowds(quick bool) []int {
	if quick {
		return []int{0, 10}
	}
	return []int{0, 10, 100, 1000}
}

// idleComputes is for how long each executes, once a second.
const idleComputes = 20 * time.Microsecond

// runIdle measures what the scheduler uses while others are nearly idle.
func runIdle(ctx context.Context, r *runner) error {
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		for _, n := range crowds(r.o.Quick) {
			if err := r.idleCrowd(ctx, sys, n); err != nil {
				return fmt.Errorf("%d %s: %w", n, sys.Name(), err)
			}
		}
		return nil
	})
}

// idleCrowd measures with so many. The enclave and its policy are there with 0 too.
func (r *runner) idleCrowd(ctx context.Context, sys System, n int) error {
	return r.scheduled(ctx, named("ias"), func(d *daemon, _ string, _ *actors.Board) (err error) {
		if n > 0 {
			end, err := r.crowd(ctx, sys, d, n)
			if err != nil {
				return err
			}
			defer end()
		}
		if err := r.pass(ctx, r.length(3*time.Second)); err != nil { // in which they come to rest: what is measured is a rate
			return err
		}
		before, err := d.schedulerCPU(ctx)
		if err != nil {
			return err
		}
		from := time.Now()
		if err := r.pass(ctx, r.length(5*time.Second)); err != nil {
			return err
		}
		took := time.Since(from)
		after, err := d.schedulerCPU(ctx)
		r.c.add(sys.Name(), fmt.Sprintf("cpu_ms_per_s_with_%d", n), Lower, 1000*float64(after-before)/float64(took))
		return err
	})
}

// crowd starts so many, and brings them into the enclave.
func (r *runner) crowd(ctx context.Context, sys System, d *daemon, n int) (end func(), err error) {
	if sys == idleThreads {
		a, err := r.startActor(ctx, nil, "idle", strconv.Itoa(n))
		if err != nil {
			return nil, err
		}
		tids, err := a.numbers(n)
		if err == nil {
			_, err = d.sched(ctx, wire.SchedPush, wire.Sched{TIDs: tids})
		}
		if err != nil {
			a.end()
		}
		return a.end, err
	}
	var all []*actor
	end = func() {
		for _, a := range all {
			a.end()
		}
	}
	var names []string
	for i := range n {
		name := fmt.Sprint("idler", i)
		a, err := r.startLight(ctx, "idler", actors.Light{Socket: d.socket(), Name: name, Computes: idleComputes})
		if err != nil {
			end()
			return nil, err
		}
		all, names = append(all, a), append(names, name)
		const often = 100
		if (i+1)%often == 0 {
			r.o.Progress(fmt.Sprintf("%s: %d light instances", r.c.Name, i+1))
		}
	}
	if err := d.join(ctx, names...); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// schedulerCPU is the CPU time of the monitor and of all that it has started but
// the network server.
func (d *daemon) schedulerCPU(ctx context.Context) (time.Duration, error) {
	var s monitor.Status
	if err := d.ask(ctx, "status", &s); err != nil {
		return 0, err
	}
	all, err := d.cpu()
	if err != nil {
		return 0, err
	}
	network, err := proctree.CPU(s.Server.PID)
	return all - network, err
}
