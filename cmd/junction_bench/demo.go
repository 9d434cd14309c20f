package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"junction/internal/bench"
	"junction/internal/usage"
)

func demoCommand() *cobra.Command {
	var o bench.DemoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show real servers in instances of junction_run beside the same servers native",
		Long: `Demo starts redis-server and nginx, unmodified, in instances of junction_run that
have the NIC's queues to themselves, loads them from another network namespace
with redis-benchmark and wrk, and does the same with both running natively.
Then both start in server mode, behind junctiond's network server, and are
switched to direct mode and back while 50 connections, which stay open, ask them.
junctiond and netserver lie beside junction_run. It fails if any request does.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Driver != "afxdp" && o.Driver != "tap" {
				return usage.Errorf("--driver %q: accepted: afxdp, tap", o.Driver)
			}
			if o.JunctionRun, err = needProgram("junction-run", o.JunctionRun); err != nil {
				return err
			}
			p := newProgress(os.Stderr)
			o.Progress = p.show
			d, err := bench.RunDemo(cmd.Context(), o)
			p.end()
			if err != nil {
				return err
			}
			if err := d.WriteTable(cmd.OutOrStdout()); err != nil {
				return err
			}
			if n, first := d.Errors(); n > 0 {
				return errors.Join(fmt.Errorf("%d requests failed", n), first)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Quick, "quick", false, "load each server for a moment only")
	f.StringVar(&o.Driver, "driver", "afxdp", "how instances get packets: `afxdp` or tap")
	f.DurationVar(&o.Spin, "spin", bench.Spin, "how long instances look for packets before they sleep")
	f.StringVar(&o.JunctionRun, "junction-run", beside("junction_run"), "`path` of junction_run")
	return cmd
}
