package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"junction/coresched/policies"
	"junction/coresched/sim"
	"junction/internal/usage"
)

func (c *ctl) schedCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "sched COMMAND", Short: "Core scheduling", DisableFlagsInUseLine: true, Args: cobra.ArbitraryArgs, RunE: group}
	cmd.AddCommand(c.enclaveCommand(), c.policyCommand(), c.pushCommand(),
		command("top", "Show once who runs where, and hand-offs in a second", cobra.NoArgs, c.schedTop), c.simCommand())
	return cmd
}

var simLong = `sim runs a policy on a simulated machine, on a virtual clock, and prints how long
requests took from arrival to end. The same flags give the same result. It needs
no junctiond.

Workloads: fixed (10 µs), exp (10 µs in the mean), rocksdb (99.5 % of 10 µs, 0.5 %
of 5 ms), bimodal (half of 1 µs, half of 100 µs), all at random moments; or a FILE
with a line for each request: ARRIVAL_US SERVICE_US [short|long] [DEADLINE_US].

With --json the figures of "long" are 0 where a workload has no long requests.
Costs: ghost are those of ghOSt's kernel as published (SOSP 2021, for its
hardware), stock those of a stock kernel, measured on a virtual machine, free
none. A policy with one agent for all cores has a core more for that.

Where requests come faster than they are served they wait the longer the more
--requests there are.

Policies, with parameters and what they are unless given by --param:

` + policies.Help()

const simExample = `  junction_ctl sched sim --policy shinjuku --workload rocksdb --load 0.5 --seed 1
  junction_ctl sched sim --policy shinjuku --param slice=10us --workload bimodal --load 0.8 --cores 16 --json`

// simFlags are sched sim's.
type simFlags struct {
	policy, workload, cost, trace      string
	params                             []string
	load                               float64
	seed                               uint64
	cores, instances, kthreads, number int
	hints                              bool
}

func (c *ctl) simCommand() *cobra.Command {
	f := &simFlags{}
	cmd := command("sim --policy P --workload W --load L", "Try a policy on a simulated machine", cobra.NoArgs,
		func(ctx context.Context, _ []string) error { return c.sim(f) })
	cmd.Long, cmd.Example = simLong, simExample
	fs := cmd.Flags()
	fs.StringVar(&f.policy, "policy", "", strings.Join(policies.Names(), ", "))
	fs.StringVar(&f.workload, "workload", "", "fixed, exp, rocksdb, bimodal or a FILE")
	fs.Float64Var(&f.load, "load", 0, "offered load of the cores, above 0, to 1 or so; a FILE's own if not given")
	fs.Uint64Var(&f.seed, "seed", 1, "seed of all that is random")
	fs.IntVar(&f.cores, "cores", 4, fmt.Sprintf("cores for requests, up to %d", sim.MaxCores))
	fs.StringVar(&f.cost, "cost", sim.Ghost.Name, "what scheduling costs: ghost, stock or free")
	fs.StringArrayVar(&f.params, "param", nil, "parameter of the policy, such as slice=30us; repeatable")
	fs.IntVar(&f.instances, "instances", 1, fmt.Sprintf("instances that the requests come to, up to %d", sim.MaxInstances))
	fs.IntVar(&f.kthreads, "kthreads", 0, "kthreads of each instance; 0: a thread for each request")
	fs.BoolVar(&f.hints, "hints", false, "programs say which requests are long, and their deadlines; not with --kthreads")
	fs.IntVar(&f.number, "requests", 200_000, "requests to measure, after a tenth as many to warm up")
	fs.StringVar(&f.trace, "trace", "", "write every event to this file")
	for _, name := range []string{"policy", "workload"} {
		_ = cmd.MarkFlagRequired(name) // fails only for flags that do not exist
	}
	for name, words := range map[string][]string{"policy": policies.Names(), "cost": {sim.Ghost.Name, sim.Stock.Name, sim.Free.Name}} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // likewise
	}
	_ = cmd.RegisterFlagCompletionFunc("workload", cobra.FixedCompletions(sim.Workloads(), cobra.ShellCompDirectiveDefault)) // or a file
	return cmd
}

// simReport is what sched sim prints as JSON.
type simReport struct {
	Schema      int       `json:"schema"`
	Policy      string    `json:"policy"`
	Workload    string    `json:"workload"`
	Load        float64   `json:"load"`
	Seed        uint64    `json:"seed"`
	Completed   int       `json:"completed"`
	Short       quantiles `json:"short"`
	Long        quantiles `json:"long"`
	Utilisation float64   `json:"utilisation"`
}

type quantiles struct {
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
}

func quantilesOf(h *sim.Hist) quantiles {
	us := func(q float64) float64 { return float64(h.Quantile(q)) / float64(time.Microsecond) }
	return quantiles{us(0.5), us(0.99), us(0.999)}
}

func (c *ctl) sim(f *simFlags) (err error) {
	config, offered, err := f.config()
	if err != nil {
		if errors.As(err, new(*os.PathError)) || errors.Is(err, sim.ErrFile) {
			return err
		}
		return usage.Wrap(err)
	}
	if f.trace != "" {
		file, err := os.Create(f.trace)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		config.Trace = file
	}
	r, err := sim.Run(config)
	if err != nil {
		return err
	}
	report := simReport{
		1, f.policy, f.workload, offered, f.seed, r.Completed, quantilesOf(&r.Short), quantilesOf(&r.Long), r.Utilisation,
	}
	return c.print(report, func(w io.Writer) { writeSim(w, &report, &r) })
}

func (f *simFlags) config() (config sim.Config, offered float64, err error) {
	params, err := policies.ParseParams(f.params)
	if err != nil {
		return config, 0, err
	}
	p, err := policies.New(f.policy, params)
	if err != nil {
		return config, 0, err
	}
	cost, err := sim.CostByName(f.cost)
	if err != nil {
		return config, 0, err
	}
	if f.number < 1 || f.cores < 1 || f.cores > sim.MaxCores || f.instances < 1 || f.instances > sim.MaxInstances || f.kthreads < 0 {
		return config, 0, fmt.Errorf("%w: take --requests of 1 or more, --cores from 1 to %d, --instances from 1 to %d, --kthreads of 0 or more",
			sim.ErrConfig, sim.MaxCores, sim.MaxInstances)
	}
	if f.hints && f.kthreads > 0 {
		return config, 0, fmt.Errorf("%w: --hints are of threads, and with --kthreads no request has one of its own; give one of the two", sim.ErrConfig)
	}
	all, offered, err := sim.Workload(f.workload, f.load, f.cores, f.instances, f.kthreads)
	if err != nil {
		return config, 0, err
	}
	for i := range all {
		all[i].Hinted = f.hints
	}
	config = sim.Config{
		Policy: p, Cores: f.cores, Cost: cost, Seed: f.seed, Instances: all, Requests: f.number, Warmup: f.number / 10,
	}
	if _, recorded := all[0].Source.(*sim.Recorded); recorded {
		config.Warmup = 0 // a file is measured from its first request on
	}
	return config, offered, nil
}

func writeSim(w io.Writer, s *simReport, r *sim.Result) {
	fmt.Fprintf(w, "%s\t%s\tload %.2f\tseed %d\tcompleted %d\n", s.Policy, s.Workload, s.Load, s.Seed, s.Completed)
	fmt.Fprintln(w, "\tp50 µs\tp99 µs\tp99.9 µs\tmean µs")
	for _, row := range []struct {
		name string
		q    quantiles
		h    *sim.Hist
	}{{"short", s.Short, &r.Short}, {"long", s.Long, &r.Long}} {
		if row.h.Count() > 0 {
			fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f\n", row.name, row.q.P50, row.q.P99, row.q.P999, row.h.Mean()/float64(time.Microsecond))
		}
	}
	fmt.Fprintf(w, "cores\texecuting %.1f %%\tswitching %.1f %%\n", 100*r.Utilisation, 100*r.Switching)
	fmt.Fprintf(w, "agents\tworking %.1f %%\ttransactions %d\tmessages %d\tdeadlines missed %d\n", 100*r.Agent, r.Counts.Txns, r.Counts.Messages, r.Missed)
}
