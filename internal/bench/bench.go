package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"junction/internal/lab"
)

// Options says what Run measures.
type Options struct {
	JunctionRun string // path of junction_run
	Runsc       string // path of runsc; empty leaves it out
	Rounds      int    // of each case; 0 is 5, or 1 with Quick
	Quick       bool   // short enough to see that everything works, not to be quoted
	NoPin       bool   // leave the choice of CPUs to the kernel
	Only        string // the cases whose name holds this
	Date        string // for the report
	// Compute is for how long nbody computes; 0 is DefaultCompute, or a moment with Quick.
	Compute time.Duration
	// Progress is called before each step.
	Progress func(what string)
}

// Spin is for how long instances look for packets in the variants that spin.
const Spin = 50 * time.Microsecond

// benchmark is one case before it has been run.
type benchmark struct {
	name, about string
	systems     []System
	run         func(context.Context, *runner) error
	bases       []string // what tables compare with; nil: native and runsc
}

// runner runs the rounds of one case.
type runner struct {
	o       Options
	c       *Case
	systems []System
	lab     *lab.Lab
	dir     string // for files, removed in the end
	server  int    // CPU of servers, or -1
	client  int    // CPU of clients, or -1
	costs   []frameCost
}

// Suite is a set of cases.
type Suite struct {
	benchmarks func(Options) []benchmark
	// anyCPU: more take part than a server and a client, so nobody is pinned.
	anyCPU bool
	// plot draws a report otherwise than by ratios to native.
	plot func(r *Report, path string) error
}

// WritePlot draws a report of the suite as a PNG picture.
func (s Suite) WritePlot(r *Report, path string) error {
	if s.plot != nil {
		return s.plot(r, path)
	}
	return r.WritePlot(path)
}

// The suites.
var (
	// Network measures servers, clients and whole instances.
	Network = Suite{benchmarks: networkBenchmarks}
	// Micro measures operations of the kernel, and computing, without a NIC.
	Micro = Suite{benchmarks: microBenchmarks}
	// Server measures server mode beside direct mode and native, and its rings.
	Server = Suite{benchmarks: serverBenchmarks, anyCPU: true}
	// Switch measures an instance that is switched between both modes.
	Switch = Suite{benchmarks: switchBenchmarks, anyCPU: true, plot: writeSwitchPlot}
	// Sched measures core scheduling of this machine's threads and instances.
	Sched = Suite{benchmarks: schedBenchmarks, anyCPU: true}
)

// Names returns the names of the suite's cases.
func (s Suite) Names() []string {
	var names []string
	for _, b := range s.benchmarks(Options{}) {
		names = append(names, b.name)
	}
	return names
}

// microBenchmarks lists the cases of Micro.
func microBenchmarks(o Options) []benchmark {
	systems := []System{Native{}}
	if o.Runsc != "" {
		systems = append(systems, Runsc{o.Runsc})
	}
	all := []benchmark{{"micro", "what one operation costs; handoff: one thread wakes another and sleeps; switch: the same with everything on one CPU",
		append(systems, microSystrap(o), microInproc(o)), runMicro, nil}}
	for _, l := range languages {
		all = append(all, benchmark{"nbody-" + l.name, "computing without system calls, in " + l.name + ", all at the same time on one CPU",
			[]System{Native{}, microInproc(o)}, runNbody(l), nil})
	}
	return all
}

// networkBenchmarks lists the cases of Network.
func networkBenchmarks(o Options) []benchmark {
	ours := func(driver string, spin time.Duration) System { return Junction{o.JunctionRun, driver, spin, ""} }
	systrap := func(driver string, spin time.Duration) System {
		return Junction{o.JunctionRun, driver, spin, "systrap"}
	}
	base := []System{Native{}}
	if o.Runsc != "" {
		base = append(base, Runsc{o.Runsc})
	}
	with := func(more ...System) []System { return append(base[:len(base):len(base)], more...) }
	afxdp, spinning, tap := ours("afxdp", 0), ours("afxdp", Spin), ours("tap", 0)
	return []benchmark{
		{"startup", "time from exec to the program's first system call, and to the end of /bin/true", with(ours("", 0), afxdp, systrap("", 0), systrap("afxdp", 0)), runStartup, nil},
		{"memory", "an idle program with its instance: all processes, one instance and each of several", with(ours("", 0), afxdp, systrap("", 0), systrap("afxdp", 0)), runMemory, nil},
		{"redis", "redis-server, redis-benchmark with 1 and 50 connections, and 50 pipelining 16 requests", with(afxdp, spinning, tap, systrap("afxdp", 0), systrap("afxdp", Spin)), runRedis, nil},
		{"udp", "round trip of 64-byte datagrams, one at a time, blocking client", with(NativeSpin{}, afxdp, spinning, tap, systrap("afxdp", 0), systrap("afxdp", Spin)), runUDP, nil},
		{"bulk", "one TCP connection of iperf3, to the server and from it", with(afxdp, tap, systrap("afxdp", 0), systrap("tap", 0)), runBulk, nil},
	}
}

// setDefaults fills in what the caller left open.
func (o *Options) setDefaults() {
	rounds, compute := 5, DefaultCompute
	if o.Quick {
		rounds, compute = 1, 200*time.Millisecond
	}
	o.Rounds = cmp.Or(o.Rounds, rounds)
	o.Compute = cmp.Or(o.Compute, compute)
}

// Run runs the cases, and returns what was measured. A system that fails in a
// case is reported in it and does not end the run.
func (s Suite) Run(ctx context.Context, o Options) (*Report, error) {
	o.setDefaults()
	o.NoPin = o.NoPin || s.anyCPU
	machine, err := describeMachine()
	if err != nil {
		return nil, err
	}
	r := &Report{Schema: Schema, Date: o.Date, Quick: o.Quick, Rounds: o.Rounds, Machine: machine}
	cpus, err := pin(o)
	if err != nil {
		return nil, err
	}
	r.Pinning = cpus.String()
	for _, b := range s.benchmarks(o) {
		if !strings.Contains(b.name, o.Only) {
			continue
		}
		if err := runCase(ctx, o, r.newCase(b.name, b.about), b, cpus); err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
	}
	r.Machine.LoadAfter, err = loadAverage()
	return r, err
}

// runCase runs one case in a lab of its own.
func runCase(ctx context.Context, o Options, c *Case, b benchmark, cpus pinning) (err error) {
	dir, err := os.MkdirTemp("", "junction-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := lab.New(lab.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if b.bases != nil {
		c.Bases = b.bases
	}
	r := &runner{o: o, c: c, systems: b.systems, lab: l, dir: dir, server: cpus.server, client: cpus.client}
	if err := b.run(ctx, r); err != nil {
		return err
	}
	c.finish()
	return nil
}

// rounds has every system sampled in turn, o.Rounds times. A system that fails
// is left out from then on.
func (r *runner) rounds(ctx context.Context, sample func(context.Context, System) error) error {
	for round := range r.o.Rounds {
		for _, sys := range r.systems {
			if r.c.Errors[sys.Name()] != "" {
				continue
			}
			r.o.Progress(fmt.Sprintf("%s, round %d of %d: %s", r.c.Name, round+1, r.o.Rounds, sys.Name()))
			limited, cancel := context.WithTimeout(ctx, sampleTimeout+3*r.o.Compute)
			err := sample(limited, sys)
			cancel()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.c.fail(sys, err)
			}
		}
		r.addCosts()
	}
	return nil
}

// fail says what went wrong with a system, in one line.
func (c *Case) fail(sys System, err error) {
	c.Errors[sys.Name()] = strings.ReplaceAll(err.Error(), "\n", "; ")
}

// sampleTimeout bounds what one system does in one round, besides computing.
const sampleTimeout = 3 * time.Minute

// serve runs a server, has use measure it, and stops it.
func (r *runner) serve(ctx context.Context, sys System, p Program, probe probe, use func(*server) error) (err error) {
	s, err := newServer(ctx, r.lab, sys, p, r.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.ready(ctx, probe); err != nil {
		return err
	}
	if err := r.countingFrames(ctx, s, use); err != nil {
		return s.explain(err)
	}
	if err := s.stop(ctx); err != nil {
		return err
	}
	r.c.Modes[sys.Name()], err = s.mode()
	return err
}

// countingFrames has use measure the server, and measures what a frame costs the
// network server, if there is one.
func (r *runner) countingFrames(ctx context.Context, s *server, use func(*server) error) error {
	d := s.plan.daemon
	if d == nil {
		return use(s)
	}
	cpu, frames, err := d.usage(ctx)
	if err != nil {
		return err
	}
	if err := use(s); err != nil {
		return err
	}
	after, now, err := d.usage(ctx)
	if err == nil && now > frames {
		r.costs = append(r.costs, frameCost{s.system.Name(), after - cpu, now - frames})
	}
	return err
}

// frameCost is what frames have cost the network server.
type frameCost struct {
	system string
	cpu    time.Duration
	frames uint64
}

// addCosts adds what a frame has cost in this round, over all its servers.
func (r *runner) addCosts() {
	for _, system := range r.systems {
		var sum frameCost
		for _, c := range r.costs {
			if c.system == system.Name() {
				sum.cpu += c.cpu
				sum.frames += c.frames
			}
		}
		if sum.frames > 0 {
			r.c.add(system.Name(), "netserver_cpu_us_per_frame", Lower, float64(sum.cpu)/1e3/float64(sum.frames))
		}
	}
	r.costs = nil
}

// probeTCP says whether the server accepts connections on a port.
func probeTCP(l *lab.Lab, port int) probe {
	return func(ctx context.Context, _ *server) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		c, err := l.Client.DialContext(ctx, "tcp", hostPort(port))
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// peerOutput runs a client under the server's own system and returns what it printed.
func (r *runner) peerOutput(ctx context.Context, s *server, argv ...string) ([]byte, error) {
	if s.plan.peer == nil {
		return r.clientOutput(ctx, argv...)
	}
	ns, argv := s.plan.peer(argv)
	return outputOf(ns.Command(ctx, argv[0], argv[1:]...), argv)
}

// clientOutput runs a client and returns what it printed.
func (r *runner) clientOutput(ctx context.Context, argv ...string) ([]byte, error) {
	return clientOutput(ctx, r.lab, r.client, argv...)
}

func clientOutput(ctx context.Context, l *lab.Lab, cpu int, argv ...string) ([]byte, error) {
	argv = pinned(argv, cpu)
	return outputOf(l.Client.Command(ctx, argv[0], argv[1:]...), argv)
}

func outputOf(c *lab.Cmd, argv []string) ([]byte, error) {
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w%s", strings.Join(argv, " "), err, diagnosis(err))
	}
	return out, nil
}
