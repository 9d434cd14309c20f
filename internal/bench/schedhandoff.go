package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	cs "junction/coresched"
	corepage "junction/coresched/instance"
	"junction/coresched/live"
	"junction/internal/bench/actors"
	"junction/internal/monitor"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
)

const caseHandoff = "sched-handoff"

// handoff is a way for a core to change hands. measure returns what each took.
type handoff struct {
	series
	about   string
	measure func(ctx context.Context, r *runner) ([]time.Duration, error)
}

func handoffs() []System {
	return []System{
		handoff{"threads, cooperative", "fifo-central: from a thread's last look at the clock before it sleeps to the first of one that waits", threadsCooperate},
		handoff{"threads, forced", "from a policy's decision against a thread that computes to the other one's first look at the clock", threadsForced},
		handoff{"instances, cooperative", "fifo-central, light instances, best effort: from giving the core up on the page to the other one's first instruction", instancesCooperate},
		handoff{"instance, wakes", "ias, light instances: one that is latency critical sleeps, best effort computes on the only core; from a byte for it to its first instruction", instanceWakes},
		handoff{"instance, forced", "ias, light instances: from one with a guarantee wanting the only core to the kernel's holding the one that does not yield", instanceForced},
		handoff{"grant", "the page alone: from the scheduler's store and ring to the first instruction of an instance that sleeps", grants},
		published{"ghOSt, thread forced", ghostTable, map[string]float64{"handoff_p50_us": 1.772}},
	}
}

// runHandoff measures all ways.
func runHandoff(ctx context.Context, r *runner) error {
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		if p, ok := sys.(published); ok {
			p.report(r.c)
			return nil
		}
		h := sys.(handoff)
		r.c.Modes[h.Name()] = h.about
		took, err := h.measure(ctx, r)
		if err == nil && len(took) == 0 {
			err = errNothingSeen
		}
		if err != nil {
			return err
		}
		r.addQuantiles(h.Name(), "handoff", took)
		return nil
	})
}

const handoffLength = 2 * time.Second

// oneCPU is the one for which is contended.
func oneCPU() ([]int, error) {
	cpus, err := allowedCPUs()
	return cpus[:min(1, len(cpus))], err
}

// after finds the first moment after a time, for times that rise.
type after struct {
	all   []actors.Moment
	known time.Duration // what was before may be forgotten
}

func allAfter(m *actors.Moments) after {
	_, all := m.Since(0, nil)
	if len(all) == 0 {
		return after{}
	}
	return after{all, all[0].At}
}

// first drops what was before at, and returns the first that was not.
func (a *after) first(at time.Duration) (time.Duration, bool) {
	i := slices.IndexFunc(a.all, func(m actors.Moment) bool { return m.At >= at })
	if i < 0 || at < a.known {
		return 0, false
	}
	a.all = a.all[i:]
	return a.all[0].At, true
}

// last returns the last moment before at.
func last(all []actors.Moment, at time.Duration) (time.Duration, bool) {
	for _, m := range slices.Backward(all) {
		if m.At < at {
			return m.At, true
		}
	}
	return 0, false
}

// handedOver pairs each moment at which one of two left the core with the next at
// which the other one ran, if that one had wanted the core for some time.
func handedOver(b *actors.Board, rests time.Duration) (took []time.Duration) {
	for i := range b.Actors {
		_, leaves := b.Actors[i].Leaves.Since(0, nil)
		_, others := b.Actors[1-i].Leaves.Since(0, nil)
		runs := allAfter(&b.Actors[1-i].Runs)
		for n, m := range leaves {
			left, ok := last(others, m.At)
			if !ok || left+rests+rests/2 > m.At {
				continue // the other one may not have wanted it yet
			}
			at, ok := runs.first(m.At)
			if ok && (n+1 == len(leaves) || at < leaves[n+1].At) {
				took = append(took, at-m.At)
			}
		}
	}
	return took
}

// collected returns what was seen in a time, or in a longer one until there is
// something.
func (r *runner) collected(ctx context.Context, seen func() []time.Duration) (took []time.Duration, err error) {
	for len(took) == 0 {
		if err := r.pass(ctx, r.length(handoffLength)); err != nil {
			return nil, errors.Join(errNothingSeen, err)
		}
		took = seen()
	}
	return took, nil
}

// scheduled has use work with a monitor, an enclave of one core under a policy,
// and a board.
func (r *runner) scheduled(ctx context.Context, policy func(board string) []string, use func(d *daemon, path string, b *actors.Board) error) error {
	return r.withBoard(func(path string, b *actors.Board) error {
		return r.withDaemon(func(d *daemon) error {
			cpus, err := oneCPU()
			if err != nil {
				return err
			}
			p := policy(path)
			if err := d.enclave(ctx, cpus, p[0], p[1:]...); err != nil {
				return err
			}
			return use(d, path, b)
		})
	})
}

func named(policy string) func(string) []string {
	return func(string) []string { return []string{policy} }
}

// pushed has use work while two threads are in the enclave.
func (r *runner) pushed(ctx context.Context, d *daemon, path string, use func() error, more ...string) error {
	a, err := r.startActor(ctx, nil, append([]string{"threads", path}, more...)...)
	if err != nil {
		return err
	}
	defer a.end()
	tids, err := a.numbers(len(actors.Board{}.Actors))
	if err != nil {
		return err
	}
	for _, tid := range tids {
		if _, err := d.sched(ctx, wire.SchedPush, wire.Sched{TIDs: []int{tid}}); err != nil {
			return err
		}
	}
	return use()
}

func threadsCooperate(ctx context.Context, r *runner) (took []time.Duration, err error) {
	err = r.scheduled(ctx, named("fifo-central"), func(d *daemon, path string, b *actors.Board) error {
		return r.pushed(ctx, d, path, func() error {
			took, err = r.collected(ctx, func() []time.Duration { return handedOver(b, actors.ThreadSleeps) })
			return err
		}, "sleeping")
	})
	return took, err
}

func threadsForced(ctx context.Context, r *runner) (took []time.Duration, err error) {
	err = r.scheduled(ctx, func(board string) []string { return append(r.o.actorProgram(), "rotor", board) }, func(d *daemon, path string, b *actors.Board) error {
		return r.pushed(ctx, d, path, func() error {
			took, err = r.collected(ctx, func() []time.Duration { return obeyed(b) })
			return err
		})
	})
	return took, err
}

// obeyed pairs a rotor's decisions with the moments at which the threads ran that
// they are for, or with the next decision if they did not run until then.
func obeyed(b *actors.Board) (took []time.Duration) {
	_, decided := b.Decided.Since(0, nil)
	var runs [2]after
	for i := range runs {
		runs[i] = allAfter(&b.Actors[i].Runs)
	}
	for n, m := range decided {
		if m.Who < 0 || m.Who >= len(runs) {
			continue
		}
		at, ok := runs[m.Who].first(m.At)
		if n+1 < len(decided) && m.At >= runs[m.Who].known && (!ok || at > decided[n+1].At) {
			at, ok = decided[n+1].At, true // at least until then
		}
		if ok {
			took = append(took, at-m.At)
		}
	}
	return took
}

// light makes a light instance and has it join the enclave. The caller ends it.
func (r *runner) light(ctx context.Context, d *daemon, role string, l actors.Light) (*actor, error) {
	l.Socket = d.socket()
	a, err := r.startLight(ctx, role, l)
	if err != nil {
		return nil, err
	}
	if err := d.join(ctx, l.Name); err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

func instancesCooperate(ctx context.Context, r *runner) (took []time.Duration, err error) {
	err = r.scheduled(ctx, named("fifo-central"), func(d *daemon, path string, b *actors.Board) error {
		for i := range b.Actors {
			a, err := r.light(ctx, d, "relay", actors.Light{
				Name: fmt.Sprint("relay", i), Board: path, Number: i, BestEffort: true, Computes: actors.ThreadComputes,
			})
			if err != nil {
				return err
			}
			defer a.end()
		}
		took, err = r.collected(ctx, func() []time.Duration { return handedOver(b, actors.RelayRests) })
		return err
	})
	return took, err
}

// against has use work while an instance computes for ever on the core that another
// one serves on, when it is told to.
func (r *runner) against(ctx context.Context, burns, serves actors.Light, use func(d *daemon, server *actor, b *actors.Board) error) error {
	return r.scheduled(ctx, named("ias"), func(d *daemon, path string, b *actors.Board) error {
		burner, err := r.light(ctx, d, "burner", burns)
		if err != nil {
			return err
		}
		defer burner.end()
		serves.Board = path
		server, err := r.light(ctx, d, "server", serves)
		if err != nil {
			return err
		}
		defer server.end()
		return use(d, server, b)
	})
}

// serveOnce has a server serve, and returns when it was asked and when it had the
// request.
func (r *runner) serveOnce(ctx context.Context, server *actor, runs *actors.Moments, seen *uint64) (asked, ran time.Duration, err error) {
	asked = actors.Clock()
	if _, err := server.in.Write([]byte{1}); err != nil {
		return 0, 0, err
	}
	var all []actors.Moment
	for len(all) == 0 {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		const soon = 100 * time.Microsecond
		time.Sleep(soon)
		*seen, all = runs.Since(*seen, all)
	}
	return asked, all[0].At, nil
}

func instanceWakes(ctx context.Context, r *runner) (took []time.Duration, err error) {
	err = r.against(ctx, actors.Light{Name: "batch", BestEffort: true},
		actors.Light{Name: "server", Guaranteed: 1, Computes: 100 * time.Microsecond},
		func(_ *daemon, server *actor, b *actors.Board) error {
			var seen uint64
			return r.watch(ctx, r.length(handoffLength), func() error {
				asked, ran, err := r.serveOnce(ctx, server, &b.Actors[0].Runs, &seen)
				took = append(took, ran-asked)
				return err
			})
		})
	return took, err
}

func instanceForced(ctx context.Context, r *runner) (took []time.Duration, err error) {
	const wants = 20 * time.Millisecond // longer than the other one has to yield
	greedy := actors.Light{Name: "greedy"}
	err = r.against(ctx, greedy, actors.Light{Name: "server", Guaranteed: 1, Computes: wants},
		func(d *daemon, server *actor, b *actors.Board) (err error) {
			o, err := client.DialOperator(ctx, d.socket())
			if err != nil {
				return err
			}
			defer o.Close()
			var seen uint64
			once := func() (found bool, err error) {
				if _, err := held(ctx, o, greedy.Name, false, math.MaxInt64); err != nil {
					return false, err
				}
				if _, _, err := r.serveOnce(ctx, server, &b.Actors[0].Runs, &seen); err != nil {
					return false, err
				}
				// A busy machine may let us look when it is over.
				if found, err = held(ctx, o, greedy.Name, true, 10*wants); !found {
					return false, err
				}
				at := actors.Clock()
				if _, wanted := b.Actors[0].Leaves.Since(0, nil); len(wanted) > 0 {
					took = append(took, at-wanted[len(wanted)-1].At)
				}
				return true, nil
			}
			return r.watch(ctx, r.length(handoffLength), func() error {
				for {
					if found, err := once(); found || err != nil {
						return err
					}
				}
			})
		})
	return took, err
}

// held waits until an instance is held by the kernel, or is not, and tells whether it
// was in so much time.
func held(ctx context.Context, o *client.Operator, name string, want bool, most time.Duration) (bool, error) {
	for begun := time.Now(); time.Since(begun) < most; {
		var top monitor.SchedTop
		if err := o.Ask(ctx, wire.SchedLook, nil, &top); err != nil {
			return false, errors.Join(errNothingSeen, err)
		}
		if slices.ContainsFunc(top.Instances, func(i live.InstanceStatus) bool { return i.Name == name && i.Held == want }) {
			return true, nil
		}
		const soon = 100 * time.Microsecond
		time.Sleep(soon)
	}
	return false, nil
}

func grants(ctx context.Context, r *runner) (took []time.Duration, err error) {
	err = r.withBoard(func(path string, b *actors.Board) (err error) {
		g, fds, err := corepage.NewGiver(1)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		var files []*os.File
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "page")
			defer f.Close()
			files = append(files, f)
		}
		a, err := r.startActor(ctx, files, "taker", path)
		if err != nil {
			return err
		}
		defer a.end()
		if _, err := a.line(); err != nil {
			return err
		}
		var seen uint64
		n := 0
		return r.watch(ctx, r.length(handoffLength), func() error {
			n++
			at := actors.Clock()
			g.Grant(n%2, new(cs.CPUSet), false)
			for {
				var all []actors.Moment
				if seen, all = b.Actors[0].Runs.Since(seen, nil); len(all) > 0 {
					took = append(took, all[0].At-at)
					return ctx.Err()
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				const soon = 100 * time.Microsecond
				time.Sleep(soon)
			}
		})
	})
	return took, err
}
