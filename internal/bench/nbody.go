package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"junction/internal/bench/clients"
	"junction/internal/bench/proctree"
)

// DefaultCompute is how long nbody computes.
const DefaultCompute = 10 * time.Second

// computeTarget is how much more CPU time an instance may take than native.
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

// runNbody measures what a program costs that makes no system call, in CPU time.
// All systems compute at the same time on one CPU, so that what disturbs the
// machine, or makes it slower for seconds, disturbs all of them alike.
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
		for round := range r.o.Rounds {
			r.o.Progress(fmt.Sprintf("%s, round %d of %d", r.c.Name, round+1, r.o.Rounds))
			if err := r.computeTogether(ctx, argv, steps, want); err != nil {
				return err
			}
		}
		r.c.target(computeMetric, Target{System: microInproc(r.o).Name(), To: Native{}.Name(), AtMost: computeTarget})
		return nil
	}
}

const computeMetric = "compute_cpu_ms"

// computeTogether samples all systems at once. One that fails is left out from
// then on.
func (r *runner) computeTogether(ctx context.Context, argv []string, steps int, want float64) error {
	limited, cancel := context.WithTimeout(ctx, sampleTimeout+time.Duration(3*len(r.systems))*r.o.Compute)
	defer cancel()
	took, errs := make([]time.Duration, len(r.systems)), make([]error, len(r.systems))
	var wg sync.WaitGroup
	for i, sys := range r.systems {
		if r.c.Errors[sys.Name()] != "" {
			continue
		}
		if errs[i] = r.learnMode(limited, sys); errs[i] != nil {
			continue
		}
		wg.Go(func() {
			var energy float64
			if took[i], energy, errs[i] = r.compute(limited, sys, argv, steps); errs[i] == nil && energy != want {
				errs[i] = fmt.Errorf("%w: %v, not %v", errEnergy, energy, want)
			}
		})
	}
	wg.Wait()
	for i, sys := range r.systems {
		if errs[i] != nil {
			r.c.fail(sys, errs[i])
		} else if r.c.Errors[sys.Name()] == "" {
			r.c.add(sys.Name(), computeMetric, Lower, milliseconds(took[i]))
		}
	}
	return ctx.Err()
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

// compute runs nbody on one CPU, and returns its result and the CPU time that it
// used from the line that it prints before on.
func (r *runner) compute(ctx context.Context, sys System, argv []string, steps int) (took time.Duration, energy float64, err error) {
	cpus, err := allowedCPUs()
	if err != nil {
		return 0, 0, err
	}
	lines, before := 0, time.Duration(0)
	p := Program{Argv: append(argv[:len(argv):len(argv)], strconv.Itoa(steps))}
	used, err := r.lines(ctx, sys, p, cpus[0], func(line string, pid int) (err error) {
		switch lines++; {
		case lines == 1 && line == clients.NbodyStart:
			before, err = proctree.CPU(pid)
		case lines == 2:
			energy, err = clients.ParseNbodyEnd(line)
		default:
			err = fmt.Errorf("%w: %.40q", errTimes, line)
		}
		return err
	})
	if err == nil && lines != 2 {
		err = errTimes
	}
	if err != nil {
		return 0, 0, err
	}
	return used - before, energy, nil
}
