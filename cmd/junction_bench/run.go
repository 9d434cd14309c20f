package main

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"junction/internal/bench"
	"junction/internal/usage"
)

// outputs are the files that a run writes.
type outputs struct{ json, plot string }

func runCommand() *cobra.Command {
	return measureCommand(&measuring{suite: bench.Network}, &cobra.Command{
		Use:   "run",
		Short: "Measure junction_run beside the same programs native and in runsc",
		Long: `Run measures, in alternating rounds on one veth, and prints medians and ratios.
Cases: ` + strings.Join(bench.Network.Names(), ", ") + `.
All of them take some 10 minutes, with --quick less than 2. Keep the machine quiet.`,
	})
}

func serverCommand() *cobra.Command {
	return measureCommand(&measuring{suite: bench.Server, withoutRunsc: true}, &cobra.Command{
		Use:   "server",
		Short: "Measure server mode beside direct mode and native, and its rings",
		Long: `Server measures instances behind a network server beside instances with NIC
queues of their own and native programs, in alternating rounds on one veth, and
the packet rings alone. junctiond and netserver lie beside junction_run.
netserver_cpu_us_per_frame is the CPU time of monitor and network server by the
frames that the latter took in. Beside each figure that has a target stands
whether it was met.
Cases: ` + strings.Join(bench.Server.Names(), ", ") + `.
All of them take some 25 minutes, with --quick less than 2. Nobody is pinned to
a CPU, for more take part than a server and a client. Keep the machine quiet.`,
	})
}

func switchCommand() *cobra.Command {
	return measureCommand(&measuring{suite: bench.Switch, withoutRunsc: true}, &cobra.Command{
		Use:   "switch",
		Short: "Measure an instance that is switched between server and direct mode",
		Long: `Switch measures nginx in one instance behind a network server, under 20
connections that stay open: in server mode, in direct mode, and with half of the
requests in each (hybrid), by file size; then with shares of the requests in
direct mode. Every answer is compared byte by byte; one that is wrong, or a
connection that ends, is a failure. Requests that are answered during a switch
count in the throughput. blackout is the longest time for which a switch kept a
packet back, a gap a time without any answer. junctiond and netserver lie beside
junction_run.
Cases: ` + strings.Join(bench.Switch.Names(), ", ") + `.
Both take some 8 minutes, with --quick less than 1. Keep the machine quiet.`,
	})
}

func microCommand() *cobra.Command {
	m := &measuring{suite: bench.Micro}
	cmd := measureCommand(m, &cobra.Command{
		Use:   "micro",
		Short: "Measure system calls and computing in instances beside native and runsc",
		Long: `Micro measures what single operations of the kernel cost under each engine, and
whether a program that only computes does so as fast as native, in alternating
rounds; it prints medians, ratios and which targets were met.
Cases: ` + strings.Join(bench.Micro.Names(), ", ") + `.
All of them take some 15 minutes, with --quick half a minute. Keep the machine quiet.`,
	})
	cmd.Flags().DurationVar(&m.o.Compute, "compute", 0, "how `long` each nbody computes; 0 is 10s, or a moment with --quick")
	return cmd
}

// measuring is what a command that measures a suite needs.
type measuring struct {
	suite bench.Suite
	o     bench.Options
	out   outputs
	// withoutRunsc is for suites of which no case runs it.
	withoutRunsc bool
}

// measureCommand gives cmd the flags and the work of measuring a suite.
func measureCommand(m *measuring, cmd *cobra.Command) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return m.run(cmd) }
	m.addFlags(cmd.Flags())
	m.out.addFlags(cmd.Flags())
	return cmd
}

func (o *outputs) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.json, "json", "", "write the report to `FILE`")
	f.StringVar(&o.plot, "plot", "", "draw the figures to `FILE`, a PNG picture")
}

func (m *measuring) addFlags(f *pflag.FlagSet) {
	o := &m.o
	f.StringVar(&o.Only, "only", "", "only the cases whose `name` holds this")
	f.BoolVar(&o.Quick, "quick", false, "short runs that show that everything works, not figures to quote")
	f.IntVar(&o.Rounds, "rounds", 0, "`rounds` of each case; 0 is 5, or 1 with --quick")
	f.BoolVar(&o.NoPin, "no-pin", false, "let the kernel choose CPUs, instead of one for the server and one for the client")
	f.StringVar(&o.Date, "date", "", "`date` to put into the report")
	f.StringVar(&o.JunctionRun, "junction-run", beside("junction_run"), "`path` of junction_run")
	if !m.withoutRunsc {
		f.StringVar(&o.Runsc, "runsc", beside("..", "build", "runsc"), "`path` of runsc, or none to leave it out")
	}
}

// check refuses what cannot be measured.
func (m *measuring) check() error {
	o, names := &m.o, m.suite.Names()
	switch {
	case !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, o.Only) }):
		return usage.Errorf("--only %q: there are %s", o.Only, strings.Join(names, ", "))
	case o.Rounds < 0 || o.Rounds > 1000:
		return usage.Errorf("--rounds %d: accepted: 1 to 1000", o.Rounds)
	case o.Compute < 0 || o.Compute > time.Hour:
		return usage.Errorf("--compute %v: accepted: up to 1h", o.Compute)
	}
	return nil
}

func (m *measuring) run(cmd *cobra.Command) (err error) {
	if err := m.check(); err != nil {
		return err
	}
	o := m.o
	if o.JunctionRun, err = needProgram("junction-run", o.JunctionRun); err != nil {
		return err
	}
	switch {
	case m.withoutRunsc || o.Runsc == "none":
		o.Runsc = ""
	default:
		if o.Runsc, err = needProgram("runsc", o.Runsc); err != nil {
			return err
		}
	}
	p := newProgress(os.Stderr)
	o.Progress = p.show
	report, err := m.suite.Run(cmd.Context(), o)
	p.end()
	if err != nil {
		return err
	}
	if err := report.WriteTable(cmd.OutOrStdout()); err != nil {
		return err
	}
	if err := m.out.write(m.suite, report); err != nil {
		return err
	}
	if report.Failed() {
		return errIncomplete
	}
	return nil
}

func (o outputs) write(suite bench.Suite, r *bench.Report) error {
	if o.json != "" {
		f, err := os.Create(o.json)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := r.WriteJSON(f); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if o.plot != "" {
		return suite.WritePlot(r, o.plot)
	}
	return nil
}
