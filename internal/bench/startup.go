package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// startsPerRound is how many starts the median of one round is of.
const startsPerRound = 5

// runStartup measures how long programs take to start and to end.
func runStartup(ctx context.Context, r *runner) error {
	first, err := buildGuest(ctx, r.dir, "first")
	if err != nil {
		return err
	}
	starts := startsPerRound
	if r.o.Quick {
		starts = 2
	}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		if err := r.learnMode(ctx, sys); err != nil {
			return err
		}
		var firsts, exits []float64
		for range starts {
			d, err := r.timeToFirst(ctx, sys, Program{Argv: []string{first}})
			if err != nil {
				return err
			}
			firsts = append(firsts, d)
			if d, err = r.timeToExit(ctx, sys, Program{Argv: []string{"/bin/true"}}); err != nil {
				return err
			}
			exits = append(exits, d)
		}
		r.c.add(sys.Name(), "first_instruction_ms", Lower, Median(firsts))
		r.c.add(sys.Name(), "exit_of_true_ms", Lower, Median(exits))
		return nil
	})
}

// timeToFirst returns the time, in ms, from just before the fork of this process
// to the arrival of the first byte that the program writes.
func (r *runner) timeToFirst(ctx context.Context, sys System, p Program) (ms float64, err error) {
	s, err := newServer(ctx, r.lab, sys, p, -1)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	at, err := s.firstByte(ctx)
	if err != nil {
		return 0, err
	}
	return milliseconds(at.Sub(s.began)), s.wait(ctx)
}

// learnMode notes what is in use when a program runs under the system: those
// that are measured do not report it.
func (r *runner) learnMode(ctx context.Context, sys System) (err error) {
	s, err := newServer(ctx, r.lab, sys, Program{Argv: []string{"/bin/true"}, Report: true}, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.wait(ctx); err != nil {
		return err
	}
	r.c.Modes[sys.Name()], err = s.mode()
	return err
}

// timeToExit returns the time, in ms, from just before the fork of this process
// to the end of the process that was started.
func (r *runner) timeToExit(ctx context.Context, sys System, p Program) (ms float64, err error) {
	s, err := newServer(ctx, r.lab, sys, p, -1)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.start(); err != nil {
		return 0, err
	}
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return milliseconds(s.ended.Sub(s.began)), nil
}

// firstByte starts the program and returns when its first byte came.
func (s *server) firstByte(ctx context.Context) (at time.Time, err error) {
	in, out, err := os.Pipe()
	if err != nil {
		return at, err
	}
	defer in.Close()
	s.cmd.Stdout = out
	err = s.start()
	_ = out.Close() // the program has its own
	if err != nil {
		return at, err
	}
	defer context.AfterFunc(ctx, func() { _ = in.SetReadDeadline(time.Now()) })()
	if _, err := in.Read(make([]byte, 1)); err != nil {
		return at, s.explain(fmt.Errorf("no byte from the program: %w", err))
	}
	return time.Now(), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
