package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"junction/internal/manpage"
	"junction/internal/monitor"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/internal/usage"
	"junction/internal/version"
	"junction/netserver"
)

// ctl is what all subcommands share.
type ctl struct {
	out    io.Writer
	err    io.Writer // for what is no result
	socket string
	json   bool
}

// newCommand returns the command, which prints results to out.
func newCommand(out io.Writer) *cobra.Command {
	c := &ctl{out: out, err: os.Stderr}
	cmd := &cobra.Command{
		Use: "junction_ctl COMMAND", Short: "Show and steer a running junctiond",
		Long:          "junction_ctl shows and steers a running junctiond.\n\nExit status: 0; 1 if it failed; 2 for a mistake on the command line; exec: the program's.",
		Version:       version.String(),
		SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true,
		SuggestionsMinimumDistance: 2, Args: cobra.ArbitraryArgs, RunE: group,
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.socket, "socket", wire.SocketPath(), "junctiond's socket, as JUNCTION_SOCKET of the environment")
	flags.BoolVar(&c.json, "json", false, "print results and errors as JSON")
	cmd.AddCommand(
		command("status", "Show monitor, network server and uplink", cobra.NoArgs, c.status),
		command("ls", "List instances", cobra.NoArgs, c.list),
		command("show NAME", "Show one instance, by name or number", cobra.ExactArgs(1), c.show),
		command("ports", "List the ports that instances own", cobra.NoArgs, c.ports),
		c.statsCommand(),
		command("restart netserver", "Replace the network server", cobra.ExactArgs(1), c.restart),
		command("upgrade netserver PATH", "Replace the network server by another program, or keep it if that fails", cobra.ExactArgs(2), c.upgrade),
		c.switchCommand(),
		c.limitCommand(),
		c.captureCommand(),
		c.topCommand(),
		command("trace N", "Show what becomes of the next N frames: the decision, where they go, and why not", cobra.ExactArgs(1), c.trace),
		c.execCommand(),
		c.signalCommand(),
		c.schedCommand(),
	)
	for _, sub := range cmd.Commands() {
		if strings.Contains(sub.Use, " NAME") {
			sub.ValidArgsFunction = c.completeName
		}
	}
	usage.Explain(cmd)
	manpage.Add(cmd)
	return cmd
}

// completeName offers the names of instances for a first argument.
func (c *ctl) completeName(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	var s monitor.Status
	if len(args) > 0 || c.ask(cmd.Context(), "status", &s) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if strings.Contains(cmd.Use, "uplink") {
		names = append(names, "uplink")
	}
	for _, i := range s.Instances {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func command(use, short string, args cobra.PositionalArgs, run func(context.Context, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) },
	}
}

// askTime is how long junctiond has to answer.
const askTime = 15 * time.Second

// ask asks junctiond.
func (c *ctl) ask(ctx context.Context, verb string, v any) error { return c.order(ctx, verb, nil, v) }

// order asks junctiond with arguments and files beside them.
func (c *ctl) order(ctx context.Context, verb string, args, v any, files ...int) error {
	return c.orderWithin(ctx, askTime, verb, args, v, files...)
}

// orderWithin is order for what may take longer.
func (c *ctl) orderWithin(ctx context.Context, most time.Duration, verb string, args, v any, files ...int) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	o, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer o.Close()
	return o.Ask(ctx, verb, args, v, files...)
}

func (c *ctl) dial(ctx context.Context) (*client.Operator, error) {
	o, err := client.DialOperator(ctx, c.socket)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w; ask as the user that runs junctiond, or as root", err)
	case errors.Is(err, client.ErrNoMonitor):
		err = fmt.Errorf("%w; start junctiond, or name its socket with --socket", err)
	}
	return o, err
}

// print prints v as JSON if asked for, else by table.
func (c *ctl) print(v any, table func(io.Writer)) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(v)
	}
	return tabulate(c.out, table)
}

func (c *ctl) status(ctx context.Context, _ []string) error {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return err
	}
	return c.print(s, func(w io.Writer) { writeStatus(w, s) })
}

func (c *ctl) list(ctx context.Context, _ []string) error {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return err
	}
	return c.print(listing{1, s.Instances}, func(w io.Writer) { writeInstances(w, s.Instances) })
}

// Results that are lists, as JSON.
type (
	listing struct {
		Schema    int                      `json:"schema"`
		Instances []monitor.InstanceStatus `json:"instances"`
	}
	portListing struct {
		Schema int                  `json:"schema"`
		Ports  []monitor.PortStatus `json:"ports"`
	}
	detail struct {
		Schema int `json:"schema"`
		monitor.InstanceStatus
		Ports   []monitor.PortStatus `json:"ports"`
		Traffic *netserver.PortStats `json:"traffic,omitempty"`
	}
	statistics struct {
		Schema int `json:"schema"`
		netserver.Stats
	}
)

func (c *ctl) show(ctx context.Context, args []string) error {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return err
	}
	i, err := find(s.Instances, args[0])
	if err != nil {
		return err
	}
	d := detail{Schema: 1, InstanceStatus: i, Ports: []monitor.PortStatus{}}
	var ports []monitor.PortStatus
	if err := c.ask(ctx, "ports", &ports); err != nil {
		return err
	}
	for _, p := range ports {
		if p.ID == i.ID {
			d.Ports = append(d.Ports, p)
		}
	}
	var stats netserver.Stats
	if err := c.ask(ctx, "stats", &stats); err == nil { // without a network server there are none
		if p, ok := stats.Ports[i.ID]; ok {
			d.Traffic = &p
		}
	}
	return c.print(d, func(w io.Writer) { writeDetail(w, d) })
}

func find(all []monitor.InstanceStatus, name string) (found monitor.InstanceStatus, err error) {
	n := 0
	for _, i := range all {
		if i.Name == name || fmt.Sprint(i.ID) == name {
			found = i
			n++
		}
	}
	switch n {
	case 0:
		return found, fmt.Errorf("no instance %q; junction_ctl ls lists those of this junctiond, which knows none that has a NIC of its own (--nic)", name)
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%d instances are called %q; give the number that junction_ctl ls shows", n, name)
}

func (c *ctl) ports(ctx context.Context, _ []string) error {
	var ports []monitor.PortStatus
	if err := c.ask(ctx, "ports", &ports); err != nil {
		return err
	}
	return c.print(portListing{1, ports}, func(w io.Writer) { writePorts(w, ports) })
}

func (c *ctl) statsCommand() *cobra.Command {
	var watch bool
	cmd := command("stats", "Show what the network server forwarded and dropped", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return c.stats(ctx, watch)
	})
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "again every second, until interrupted")
	return cmd
}

func (c *ctl) stats(ctx context.Context, watch bool) error {
	for {
		var s netserver.Stats
		if err := c.ask(ctx, "stats", &s); err != nil {
			return err
		}
		if err := c.print(statistics{1, s}, func(w io.Writer) { writeStats(w, s) }); err != nil || !watch {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *ctl) restart(ctx context.Context, args []string) error {
	if args[0] != "netserver" {
		return usage.Errorf("restart %q: only netserver can be restarted", args[0])
	}
	var s monitor.ServerStatus
	if err := c.ask(ctx, "restart", &s); err != nil {
		return err
	}
	return c.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "netserver\tpid %d\toutage %v\n", s.PID, s.LastOutage)
	})
}
