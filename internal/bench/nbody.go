package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"junction/internal/bench/clients"
)

// DefaultCompute is how long nbody computes.
const DefaultCompute = 10 * time.Second

// computeTarget is how much longer an instance may compute than native.
const computeTarget = 1.02

// language is one in which nbody is written.
type language struct {
	name string
	// build makes the program in dir; its only argument is the number of steps.
	build func(ctx context.Context, dir string) (argv []string, err error)
}

var languages = []language{
	{"c", func(ctx context.Context, dir string) ([]string, error) {
		source, err := writeGuest(dir, "guest/nbody.c")
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "nbody")
		return []string{path}, compile(ctx, dir, "cc", "-O2", "-o", path, source, "-lm")
	}},
	{"python", script("python3", "guest/nbody.py")},
	{"node", script("node", "guest/nbody.js")},
	{"java", func(ctx context.Context, dir string) ([]string, error) {
		source, err := writeGuest(dir, "guest/Nbody.java")
		if err != nil {
			return nil, err
		}
		java, err := programPath("java")
		if err != nil {
			return nil, err
		}
		return []string{java, "-cp", dir, "Nbody"}, compile(ctx, dir, "javac", "-d", dir, source)
	}},
	{"go", func(ctx context.Context, dir string) ([]string, error) {
		source, err := writeGuest(dir, "nbody/main.go")
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "nbody-go")
		return []string{path}, compile(ctx, dir, "go", "build", "-o", path, source)
	}},
}

// script is a language whose interpreter reads the source.
func script(interpreter, source string) func(context.Context, string) ([]string, error) {
	return func(_ context.Context, dir string) ([]string, error) {
		path, err := programPath(interpreter)
		if err != nil {
			return nil, err
		}
		source, err := writeGuest(dir, source)
		return []string{path, source}, err
	}
}

var (
	errEnergy = errors.New("it computed something else than native")
	errTimes  = errors.New("nbody printed too little, or too much")
)

// runNbody measures how long a program computes that makes no system call.
func runNbody(l language) func(context.Context, *runner) error {
	return func(ctx context.Context, r *runner) error {
		argv, err := l.build(ctx, r.dir)
		if err != nil {
			return err
		}
		steps, want, err := r.calibrate(ctx, argv)
		if err != nil {
			return fmt.Errorf("native: %w", err)
		}
		const metric = "compute_ms"
		err = r.rounds(ctx, func(ctx context.Context, sys System) error {
			if err := r.learnMode(ctx, sys); err != nil {
				return err
			}
			took, energy, err := r.compute(ctx, sys, argv, steps)
			if err != nil {
				return err
			}
			if energy != want {
				return fmt.Errorf("%w: %v, not %v", errEnergy, energy, want)
			}
			r.c.add(sys.Name(), metric, Lower, milliseconds(took))
			return nil
		})
		r.c.target(metric, Target{System: microInproc(r.o).Name(), To: Native{}.Name(), AtMost: computeTarget})
		return err
	}
}

// calibrate returns how many steps native computes in about the time asked for,
// and what the result is. Step by step: a runtime that compiles while the program
// runs is slow at first.
func (r *runner) calibrate(ctx context.Context, argv []string) (steps int, energy float64, err error) {
	r.o.Progress(r.c.Name + ": how many steps")
	for steps = 1000; ; {
		took, energy, err := r.compute(ctx, Native{}, argv, steps)
		if err != nil {
			return 0, 0, err
		}
		missing := r.o.Compute.Seconds() / took.Seconds()
		if missing < 1.25 {
			return steps, energy, nil
		}
		steps = int(float64(steps) * min(missing, 8))
	}
}

// compute runs nbody, and returns its result and the time between the lines that
// it prints before and after. Seen from outside: what a program thinks that time
// is, is part of what is measured.
func (r *runner) compute(ctx context.Context, sys System, argv []string, steps int) (took time.Duration, energy float64, err error) {
	var times []time.Time
	p := Program{Argv: append(argv[:len(argv):len(argv)], strconv.Itoa(steps))}
	err = r.lines(ctx, sys, p, r.server, func(line string, at time.Time) (err error) {
		times = append(times, at)
		switch {
		case len(times) == 1 && line == clients.NbodyStart:
		case len(times) == 2:
			energy, err = clients.ParseNbodyEnd(line)
		default:
			err = fmt.Errorf("%w: %.40q", errTimes, line)
		}
		return err
	})
	if err == nil && len(times) != 2 {
		err = errTimes
	}
	if err != nil {
		return 0, 0, err
	}
	return times[1].Sub(times[0]), energy, nil
}
