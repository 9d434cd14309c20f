package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"junction/coresched/policies"
	"junction/coresched/sim"
	"junction/internal/bench"
	"junction/internal/bench/schedsim"
	"junction/internal/usage"
)

func schedCommand() *cobra.Command {
	var o schedsim.Options
	live := measuring{suite: bench.Sched, withoutRunsc: true}
	var isLive bool
	cmd := &cobra.Command{
		Use:   "sched",
		Short: "Compare policies of core scheduling in the simulator, or measure it live",
		Long: `Sched simulates policies at several loads, and prints tables of tail latency, use
of the cores and the cost of scheduling. It measures nothing of this machine.

With --live it measures core scheduling of this machine's threads and instances,
in alternating rounds, and which targets were met, beside figures that others
have published of other hardware. junctiond, netserver and junction_policy lie
beside junction_run.
Cases: ` + strings.Join(bench.Sched.Names(), ", ") + `.
All of them take some 10 minutes, with --quick 2. Keep the machine quiet.`,
	}
	f := cmd.Flags()
	f.BoolVar(&isLive, "live", false, "measure this machine; goes with the flags from --only on")
	simulated := pflag.NewFlagSet("", pflag.ContinueOnError)
	simulated.StringSliceVar(&o.Policies, "policies", nil, "`names` of policies; default all")
	simulated.StringVar(&o.Workload, "workload", "rocksdb", "fixed, exp, rocksdb, bimodal or a `FILE`")
	simulated.Float64SliceVar(&o.Loads, "loads", nil, "`loads` to offer; default 0.1 to 0.9")
	simulated.IntVar(&o.Cores, "cores", 8, "`number` of cores")
	simulated.StringVar(&o.Cost, "cost", "ghost", "what scheduling costs: `ghost`, stock or free")
	simulated.Uint64Var(&o.Seed, "seed", 1, "`seed` of all that is random")
	simulated.IntVar(&o.Requests, "requests", 200_000, "`number` of requests a point")
	f.AddFlagSet(simulated)
	measured := pflag.NewFlagSet("", pflag.ContinueOnError)
	live.addFlags(measured)
	f.AddFlagSet(measured)
	live.out.addFlags(f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		foreign, why := measured, "goes with --live"
		if isLive {
			foreign, why = simulated, "is the simulator's, without --live"
		}
		var err error
		foreign.VisitAll(func(other *pflag.Flag) {
			if other.Changed {
				err = usage.Errorf("--%s %s", other.Name, why)
			}
		})
		switch {
		case err != nil:
			return err
		case isLive:
			return live.run(cmd)
		}
		return sweep(cmd, o, live.out)
	}
	return cmd
}

func sweep(cmd *cobra.Command, o schedsim.Options, out outputs) error {
	if o.Requests < 1 || o.Cores < 1 {
		return usage.Errorf("--requests %d --cores %d: accepted: 1 or more", o.Requests, o.Cores)
	}
	r, err := schedsim.Sweep(cmd.Context(), o)
	for _, wrong := range []error{sim.ErrConfig, sim.ErrCost, sim.ErrWorkload, policies.ErrUnknown} {
		if errors.Is(err, wrong) {
			return usage.Wrap(err)
		}
	}
	if err != nil {
		return err
	}
	if err := r.WriteTables(cmd.OutOrStdout()); err != nil {
		return err
	}
	if out.json != "" {
		if err := r.WriteJSON(out.json); err != nil {
			return err
		}
	}
	if out.plot == "" {
		return nil
	}
	return r.WritePlot(out.plot)
}
