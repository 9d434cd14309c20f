package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"junction/internal/bench/schedsim"
)

func schedCommand() *cobra.Command {
	var o schedsim.Options
	var out outputs
	cmd := &cobra.Command{
		Use:   "sched",
		Short: "Compare policies of core scheduling in the simulator",
		Long: `Sched simulates policies at several loads, and prints tables of tail latency, use
of the cores and the cost of scheduling. It measures nothing of this machine.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return sweep(cmd, o, out) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Policies, "policies", nil, "`names` of policies; default all")
	f.StringVar(&o.Workload, "workload", "rocksdb", "fixed, exp, rocksdb, bimodal or a `FILE`")
	f.Float64SliceVar(&o.Loads, "loads", nil, "`loads` to offer; default 0.1 to 0.9")
	f.IntVar(&o.Cores, "cores", 8, "`number` of cores")
	f.StringVar(&o.Cost, "cost", "ghost", "what scheduling costs: `ghost`, stock or free")
	f.Uint64Var(&o.Seed, "seed", 1, "`seed` of all that is random")
	f.IntVar(&o.Requests, "requests", 200_000, "`number` of requests a point")
	f.StringVar(&out.json, "json", "", "write the report to `FILE`")
	f.StringVar(&out.plot, "plot", "", "draw the figures to `FILE`, a PNG picture")
	return cmd
}

func sweep(cmd *cobra.Command, o schedsim.Options, out outputs) error {
	if o.Requests < 1 || o.Cores < 1 {
		return usageError{fmt.Errorf("--requests %d --cores %d: accepted: 1 or more", o.Requests, o.Cores)}
	}
	r, err := schedsim.Sweep(cmd.Context(), o)
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
