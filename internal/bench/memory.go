package bench

import (
	"context"
	"errors"
	"time"

	"junction/internal/bench/proctree"
	"junction/internal/lab"
)

// several is how many instances share a machine in the second measurement.
const several = 5

// idleTime is for how long the program is idle before its memory is looked at:
// what is given back right after the start is not counted.
const idleTime = 2 * time.Second

// runMemory measures the memory of an idle program with all that it takes to run
// it. It is the same in every round, so one is enough.
func runMemory(ctx context.Context, r *runner) error {
	first, err := buildGuest(ctx, r.dir, "first")
	if err != nil {
		return err
	}
	p := Program{Argv: []string{first, "stay"}}
	r.o.Rounds = min(r.o.Rounds, 3)
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		if err := r.learnMode(ctx, sys); err != nil {
			return err
		}
		one, err := r.idle(ctx, sys, p, 1)
		if err != nil {
			return err
		}
		each, err := r.idle(ctx, sys, p, several)
		if err != nil {
			return err
		}
		r.c.add(sys.Name(), "one_pss_mib", Lower, mib(one.PSS, 1))
		r.c.add(sys.Name(), "one_private_mib", Lower, mib(one.Private, 1))
		r.c.add(sys.Name(), "one_rss_mib", Lower, mib(one.RSS, 1))
		r.c.add(sys.Name(), "one_processes", Lower, float64(one.Processes))
		r.c.add(sys.Name(), "each_of_5_pss_mib", Lower, mib(each.PSS, several))
		r.c.add(sys.Name(), "each_of_5_private_mib", Lower, mib(each.Private, several))
		return nil
	})
}

// idle starts n idle instances, each in a lab of its own, and returns the sum of
// their memory.
func (r *runner) idle(ctx context.Context, sys System, p Program, n int) (sum proctree.Memory, err error) {
	var servers []*server
	for range n {
		l, err := lab.New(lab.Options{})
		if err != nil {
			return sum, err
		}
		defer l.Close()
		s, err := newServer(ctx, l, sys, p, -1)
		if err != nil {
			return sum, err
		}
		defer s.close()
		if _, err := s.firstByte(ctx); err != nil {
			return sum, err
		}
		servers = append(servers, s)
	}
	select { // this is what is measured: memory after some idle time
	case <-time.After(idleTime):
	case <-ctx.Done():
		return sum, ctx.Err()
	}
	return r.sumAndStop(ctx, servers)
}

func (r *runner) sumAndStop(ctx context.Context, servers []*server) (sum proctree.Memory, err error) {
	for _, s := range servers {
		m, err := s.memory()
		if err != nil {
			return sum, err
		}
		sum.PSS += m.PSS
		sum.Private += m.Private
		sum.RSS += m.RSS
		sum.Processes += m.Processes
	}
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.stop(ctx))
	}
	return sum, errors.Join(errs...)
}

func mib(bytes uint64, n int) float64 { return float64(bytes) / (1 << 20) / float64(n) }
