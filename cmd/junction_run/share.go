package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"junction/coresched/instance"
	"junction/internal/monitor/cores"
	"junction/internal/monitor/wire"
	"junction/libos/kthreads"
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
	o.sharer = cores.Start(threads{o.inst.Kthreads()}, taker, limit, o.logger)
	o.logger.Info("cores are scheduled", "kthreads", limit, "best_effort", o.cores.BestEffort)
	return wire.CoresWanted{
		Kthreads: limit, Spinning: min(o.cores.Spinning, limit), Guaranteed: o.cores.Guaranteed,
		BestEffort: o.cores.BestEffort, Delay: o.cores.Delay,
	}, nil
}

// threads makes an instance's kthreads a Sharer's.
type threads struct{ p *kthreads.Platform }

// SetLimit implements cores.Threads.
func (t threads) SetLimit(n int) { t.p.SetTokens(n) }

// Demand implements cores.Threads.
func (t threads) Demand() cores.Demand {
	d := t.p.Demand()
	return cores.Demand{Executing: d.Executing, Waiting: d.Waiting, Longest: d.Longest, Turns: d.Turns}
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
