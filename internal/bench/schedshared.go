package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/bench/load"
	"junction/internal/lab"
)

// caseShared and the names of what it compares.
const (
	caseShared = "sched-redis"

	alone      = "alone"
	beside     = "beside"
	underIas   = "ias"
	p99Metric  = "p99_us"
	leftMetric = "batch_of_left"
)

var sharedTargets = map[string]Target{
	p99Metric:  {System: underIas, To: alone, AtMost: 1.5},
	leftMetric: {System: underIas, AtLeast: 0.8},
}

// askPause is between an answer and the next request.
const askPause = 300 * time.Microsecond

// instances runs redis and the batch job in instances behind one network server.
type instances struct{ path string }

// Name implements System.
func (instances) Name() string { return "instances" }

func (s instances) prepare(*lab.Lab, Program) (*plan, error) {
	return nil, errors.New("several programs, not one")
}

// Configurations of the two instances.
const (
	redisConfig = "runtime_priority lc\nruntime_guaranteed_kthreads 1\nruntime_kthreads %d\n"
	batchConfig = "runtime_priority be\nruntime_kthreads %d\n"
)

// runShared measures redis and a batch job on the same CPUs.
func runShared(ctx context.Context, r *runner) error {
	redis, err := redisProgram()
	if err != nil {
		return err
	}
	redis.Report = false
	cpus, err := allowedCPUs()
	if err != nil {
		return err
	}
	path, err := buildGuest(ctx, r.dir, "batch")
	if err != nil {
		return err
	}
	s := shared{runner: r, redis: redis, batch: Program{Argv: []string{path, strconv.Itoa(len(cpus))}}, cpus: cpus}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		if sys == (Native{}) {
			return s.native(ctx)
		}
		return s.instances(ctx, sys.(instances))
	})
}

// shared is redis and a batch job that share CPUs.
type shared struct {
	*runner
	redis, batch Program
	cpus         []int
	// of the present round and system:
	perSecond float64 // units of work of the batch job alone
	left      float64 // share of the CPUs that redis leaves when it is alone
}

// native measures both on the host's kernel.
func (s *shared) native(ctx context.Context) error {
	batch := func(argv ...string) Program { return Program{Argv: append(argv, s.batch.Argv...)} }
	return s.run(ctx, s.redis, Native{}, probeTCP(s.lab, redisPort), func(db *server) error {
		if err := s.bases(ctx, "native", db, batch(), Loopback{}); err != nil {
			return err
		}
		beside := func(series string) func(*server) error {
			return func(v *server) error { return s.measure(ctx, series, db, v) }
		}
		return errors.Join(
			s.run(ctx, batch(), Loopback{}, working, beside("native, batch")),
			s.run(ctx, batch("chrt", "-i", "0"), Loopback{}, working, beside("native, batch SCHED_IDLE")))
	})
}

// instances measures both in instances, without and under ias.
func (s *shared) instances(ctx context.Context, sys instances) (err error) {
	d, err := startDaemon(s.lab, ServerMode{Path: sys.path, Driver: switchDriver})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	db := tenant{sys.path, d, "db", fmt.Sprintf(redisConfig, len(s.cpus))}
	batch := tenant{sys.path, d, "batch", fmt.Sprintf(batchConfig, len(s.cpus))}
	return s.run(ctx, s.redis, db, probeTCP(s.lab, redisPort), func(redis *server) error {
		if err := s.bases(ctx, alone, redis, s.batch, batch); err != nil {
			return err
		}
		return s.run(ctx, s.batch, batch, working, func(v *server) (err error) {
			if err := s.measure(ctx, beside, redis, v); err != nil {
				return err
			}
			if err := d.enclave(ctx, s.cpus, "ias"); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.dissolve(ctx)) }()
			if err := d.join(ctx, db.name, batch.name); err != nil {
				return err
			}
			return s.measure(ctx, underIas, redis, v)
		})
	})
}

// run has use work while a program runs, and ends it.
func (s *shared) run(ctx context.Context, p Program, sys System, ready probe, use func(*server) error) (err error) {
	v, err := newServer(ctx, s.lab, sys, p, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	if err := v.start(); err != nil {
		return err
	}
	if err := v.ready(ctx, ready); err != nil {
		return err
	}
	if err := use(v); err != nil {
		return v.explain(err)
	}
	return nil
}

// units is how much work a batch job has done: each is a dot that it printed.
func (s *server) units() int { return bytes.Count(s.printed(), []byte(".")) }

// working is when a batch job is well under way.
func working(_ context.Context, s *server) error {
	const some = 20
	if s.units() < some {
		return errors.New("no work done yet")
	}
	return nil
}

// length is that of one measurement.
func (s *shared) length() time.Duration {
	if s.o.Quick {
		return 300 * time.Millisecond
	}
	return 4 * time.Second
}

// bases measures what the others are compared with: the batch job while redis has
// nothing to do, and redis alone.
func (s *shared) bases(ctx context.Context, series string, redis *server, batch Program, sys System) error {
	err := s.run(ctx, batch, sys, working, func(v *server) error {
		before, from := v.units(), time.Now()
		for v.units() == before { // on a machine with much else to do it may take longer
			if err := s.pass(ctx, s.length()); err != nil {
				return err
			}
		}
		s.perSecond = float64(v.units()-before) / time.Since(from).Seconds()
		return nil
	})
	if err != nil {
		return err
	}
	before, err := withClient(redis)
	if err != nil {
		return err
	}
	from := time.Now()
	if err := s.measure(ctx, series, redis, nil); err != nil {
		return err
	}
	took := time.Since(from)
	after, err := withClient(redis)
	s.left = 1 - float64(after-before)/float64(took)/float64(len(s.cpus))
	return err
}

// withClient returns the CPU time of a server, its network and its client, which is
// this process.
func withClient(s *server) (time.Duration, error) {
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return 0, err
	}
	used, err := s.cpu()
	return used + time.Duration(own.Utime.Nano()+own.Stime.Nano()), err
}

// measure asks redis, and counts what the batch job does meanwhile, unless it is nil.
func (s *shared) measure(ctx context.Context, series string, redis, batch *server) error {
	dial := s.dialer(redis, redisPort)
	e, err := getValue("value").learn(ctx, dial)
	if err != nil {
		return err
	}
	before, from := 0, time.Now()
	if batch != nil {
		before = batch.units()
	}
	p, err := load.Paced(ctx, dial, e, askPause, s.length())
	if err != nil {
		return err
	}
	for _, q := range []struct {
		name    string
		percent float64
	}{{"p50_us", 50}, {p99Metric, 99}, {"p99.9_us", 99.9}} {
		s.c.add(series, q.name, Lower, float64(p.Percentile(q.percent))/1e3)
	}
	if batch == nil {
		return nil
	}
	share := float64(batch.units()-before) / time.Since(from).Seconds() / s.perSecond
	s.c.add(series, "batch_of_alone", Higher, share)
	s.c.add(series, leftMetric, Higher, share/s.left)
	return nil
}
