package main

import (
	"cmp"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"junction/coresched/instance"
	"junction/internal/monitor/cores"
	"junction/internal/monitor/wire"
	"junction/libos/kthreads"
	modeswitch "junction/switch"
)

// share has cores be scheduled by who sent the page and the doorbell.
//
// +checklocks:o.mu
func (o *operators) share(files []int) (any, error) {
	if len(files) != instance.Files {
		return nil, fmt.Errorf("cores with %d files; use programs of one release: %w", len(files), unix.EINVAL)
	}
	taker, err := instance.NewTaker([instance.Files]int(files))
	files[0], files[1] = -1, -1
	if err != nil {
		return nil, err
	}
	if o.sharer != nil {
		o.sharer.Stop() // its scheduler has let it go, or is about to
	}
	limit := o.inst.Limit()
	o.sharer = cores.Start(threads{o.inst.Kthreads(), o.link}, taker, cores.Options{
		Kthreads: limit, Guaranteed: o.cores.Guaranteed, Delay: cmp.Or(o.cores.Delay, defaultDelay), Logger: o.logger,
	})
	o.logger.Info("cores are scheduled", "kthreads", limit, "latency_critical", o.cores.LatencyCritical)
	return wire.CoresWanted{
		Kthreads: limit, Spinning: min(o.cores.Spinning, limit), Guaranteed: o.cores.Guaranteed,
		BestEffort: !o.cores.LatencyCritical, Delay: o.cores.Delay,
	}, nil
}

// defaultDelay is Caladan's, for instances that do not say.
const defaultDelay = 10 * time.Microsecond

// threads makes an instance's kthreads, and its link endpoint's frames, a Sharer's.
type threads struct {
	p    *kthreads.Platform
	link *modeswitch.Endpoint
}

// SetLimit implements cores.Threads.
func (t threads) SetLimit(n int) { t.p.SetTokens(n) }

// Demand implements cores.Threads.
func (t threads) Demand() cores.Demand {
	d := t.p.Demand()
	return cores.Demand{
		Executing: d.Executing, Waiting: d.Waiting, Longest: d.Longest, Turns: d.Turns, Frames: t.link.OldestFrame(), CPU: cpuTime(),
	}
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // cannot fail with this clock
	return time.Duration(ts.Nano())
}

// Park implements cores.Threads.
func (t threads) Park() bool { return t.p.Park() }

// Observe implements cores.Threads.
func (t threads) Observe(o cores.Observer) {
	if o == nil {
		t.p.Observe(nil) // not an Observer that is nil
		return
	}
	t.p.Observe(o)
}
