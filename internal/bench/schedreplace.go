package bench

import (
	"context"
	"os"
	"strconv"

	"junction/internal/bench/load"
	"junction/internal/monitor/wire"
)

const (
	caseReplace = "sched-replace"

	lostMetric     = "requests_lost"
	blackoutMetric = "blackout_p50_ms"
)

// replaced are what runs under policies that follow each other.
const (
	replacedThreads  = series("threads")
	replacedInstance = series("instance")
)

// replaceTargets are wanted of threads; the same is wanted of instances.
var replaceTargets = map[string]Target{
	lostMetric:     {System: replacedThreads.Name(), AtMost: 0},
	blackoutMetric: {System: replacedThreads.Name(), AtMost: 5},
}

const replaceConnections = 8

// runReplace measures redis under load while policies follow each other.
func runReplace(ctx context.Context, r *runner) error {
	p, err := redisProgram()
	if err != nil {
		return err
	}
	p.Report = false
	err = r.rounds(ctx, func(ctx context.Context, sys System) error {
		return r.withDaemon(func(d *daemon) error {
			of, push := System(Loopback{}), r.pushAll(d)
			if sys == replacedInstance {
				of, push = tenant{r.o.JunctionRun, d, "db", "runtime_kthreads 2\n"}, func(ctx context.Context, _ *server) error { return d.join(ctx, "db") }
			}
			s := shared{runner: r}
			return s.run(ctx, p, of, r.probeServer(redisPort), func(v *server) error {
				cpus, err := allowedCPUs()
				if err != nil {
					return err
				}
				if err := d.enclave(ctx, cpus, "fifo-central"); err != nil {
					return err
				}
				if err := push(ctx, v); err != nil {
					return err
				}
				return r.replace(ctx, d, v, sys)
			})
		})
	})
	for _, m := range []string{lostMetric, blackoutMetric} {
		t := replaceTargets[m]
		t.System = replacedInstance.Name()
		r.c.target(m, t)
	}
	return err
}

// pushAll brings all threads of a program into the enclave.
func (r *runner) pushAll(d *daemon) func(context.Context, *server) error {
	return func(ctx context.Context, v *server) error {
		entries, err := os.ReadDir("/proc/" + strconv.Itoa(v.cmd.Process.Pid) + "/task")
		if err != nil {
			return err
		}
		var tids []int
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				return err
			}
			tids = append(tids, tid)
		}
		_, err = d.sched(ctx, wire.SchedPush, wire.Sched{TIDs: tids})
		return err
	}
}

// replace has fifo-central and shinjuku follow each other while redis is asked. A
// request that is not answered, or wrongly, is lost.
func (r *runner) replace(ctx context.Context, d *daemon, v *server, sys System) error {
	times := 20
	if r.o.Quick {
		times = 2
	}
	var dark []float64
	var all []load.Phase
	err := r.loaded(ctx, v, redisPort, replaceConnections, getValue("value"), func(on *busy) error {
		for range times {
			for _, policy := range []string{"shinjuku", "fifo-central"} {
				const between = 200
				if err := on.load.Wait(ctx, between); err != nil {
					return err
				}
				result, err := d.sched(ctx, wire.SchedPolicy, wire.Sched{Policy: policy})
				if err != nil {
					return err
				}
				if policy == "shinjuku" {
					dark = append(dark, result.BlackoutUS/1e3)
				}
				all = append(all, on.load.Mark())
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p := load.Join(all...)
	r.c.add(sys.Name(), lostMetric, Lower, float64(p.Errors))
	r.c.add(sys.Name(), blackoutMetric, Lower, Percentile(dark, 50))
	r.c.add(sys.Name(), "blackout_max_ms", Lower, Percentile(dark, 100))
	r.c.add(sys.Name(), "longest_gap_of_answers_ms", Lower, milliseconds(p.Gap))
	r.c.add(sys.Name(), "requests_per_s", Higher, p.PerSecond())
	return nil
}
