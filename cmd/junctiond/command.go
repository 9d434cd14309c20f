package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"junction/direct"
	"junction/direct/steer"
	"junction/internal/manpage"
	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/internal/usage"
	"junction/internal/version"
	"junction/switch/auto"
)

const long = `junctiond runs server mode: it takes a NIC, which a network server (netserver,
which it starts, watches and replaces) serves for all instances, gives instances
started with junction_run their addresses and ports, and frees what they had
when they end. Instances without an address of their own share --addr.

The NIC is taken over: the host's own stack sees no frame of it.

Exit status: 0 when it was told to end; 1 if it failed; 2 for a mistake on the
command line.`

const example = `  junctiond --nic eth1 --addr 198.18.0.2/24 --gateway 198.18.0.1
  junctiond --nic eth1 --addr 198.18.0.2/24 --dedicated 198.18.0.128/25`

// flags are the command line.
type flags struct {
	socket, nic, driver, server string
	mac                         string
	shared, dedicated           []string
	gateways                    []string
	mtu                         int
	hangAfter, spin             time.Duration
	minPort                     uint16
	directQueues                int
	noOutlets                   bool
	auto                        wire.AutoSettings
	metrics                     string
	logFormat                   string
	logLevel                    string
}

func newCommand() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "junctiond --nic IF[:QUEUES] --addr CIDR [flags]", Short: "Run the monitor of server mode",
		Long: long, Example: example, Version: version.String(), Args: cobra.NoArgs,
		SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options()
			if err != nil {
				return usage.Wrap(err)
			}
			if err := o.CheckNIC(cmd.Context()); err != nil {
				return err
			}
			err = monitor.Run(cmd.Context(), o)
			if errors.Is(err, monitor.ErrOptions) {
				return usage.Wrap(err)
			}
			return err
		},
	}
	f.register(cmd.Flags())
	cmd.AddCommand(guardCommand())
	manpage.Add(cmd)
	usage.Explain(cmd)
	return cmd
}

func (f *flags) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.StringVar(&f.nic, "nic", "", "NIC to serve, and how many of its queues: IF[:QUEUES]")
	fs.StringArrayVar(&f.shared, "addr", nil, "shared address with its prefix length; repeatable")
	fs.StringArrayVar(&f.gateways, "gateway", nil, "default router; repeatable, one for each IP version")
	fs.StringArrayVar(&f.dedicated, "dedicated", nil, "network whose addresses instances may ask for; repeatable")
	fs.StringVar(&f.driver, "driver", "", "afxdp, tap, or as the last resort afpacket; default: the better of the first two that the NIC allows")
	fs.IntVar(&f.mtu, "mtu", 0, "largest IP packet in bytes; default: the NIC's")
	fs.StringVar(&f.mac, "mac", "", "Ethernet address; default: the NIC's")
	fs.StringVar(&f.socket, "socket", wire.SocketPath(), "path of the control socket, as JUNCTION_SOCKET of the environment")
	fs.StringVar(&f.server, "netserver", "", "network server's program; default: netserver beside junctiond")
	fs.DurationVar(&f.hangAfter, "hang-after", 0, "how long the network server may give no sign of life, at least 10ms; default 250ms")
	fs.DurationVar(&f.spin, "spin", 0, "how long the network server looks for frames before it sleeps")
	fs.IntVar(&f.directQueues, "direct-queues", steer.DefaultVFs, "how many instances may be in direct mode at once")
	fs.BoolVar(&f.noOutlets, "no-outlets", false, "have instances in direct mode cut what is larger than the MTU, and make its checksums, instead of sending all by TAPs that pass it on to the NIC")
	fs.BoolVar(&f.auto.On, "auto", false, "switch the busiest instances to direct mode, and others back (junction_ctl switch --auto changes it)")
	fs.IntVar(&f.auto.Queues, "auto-queues", 0, "with --auto: how many instances may be in direct mode; default: --direct-queues")
	fs.Float64Var(&f.auto.Rate, "auto-rate", auto.DefaultRate, "with --auto: from how many packets per second an instance is worth a queue")
	fs.Uint16Var(&f.minPort, "min-port", 0, "lowest port that instances may bind")
	fs.StringVar(&f.metrics, "metrics", "", "address to serve Prometheus metrics at, such as 127.0.0.1:9100; default: nowhere")
	fs.StringVar(&f.logFormat, "log", "text", "form of messages on standard error: text or json")
	fs.StringVar(&f.logLevel, "log-level", "info", "least level of messages: debug, info, warn or error")
}

// options checks the flags.
func (f *flags) options() (o monitor.Options, err error) {
	if f.nic == "" || len(f.shared) == 0 {
		return o, fmt.Errorf("--nic IF and --addr CIDR are needed; see junctiond --help")
	}
	if f.directQueues < 1 || f.directQueues > steer.MaxVFs {
		return o, fmt.Errorf("--direct-queues %d: 1 to %d are possible", f.directQueues, steer.MaxVFs)
	}
	if err := f.checkNumbers(); err != nil {
		return o, err
	}
	o.Socket, o.HangAfter, o.MinPort, o.Metrics = f.socket, f.hangAfter, f.minPort, f.metrics
	o.DirectQueues, o.NoOutlets, o.Auto = f.directQueues, f.noOutlets, f.auto
	o.Uplink = wire.Setup{Driver: f.driver, MTU: f.mtu, MAC: f.mac, Spin: f.spin}
	if o.Uplink.NIC, o.Uplink.Queues, err = direct.ParseNIC(f.nic); err != nil {
		return o, fmt.Errorf("--nic %q: %w", f.nic, err)
	}
	if o.Shared, err = parseAll("addr", f.shared, parsePrefix); err != nil {
		return o, err
	}
	if o.Dedicated, err = parseAll("dedicated", f.dedicated, parsePrefix); err != nil {
		return o, err
	}
	if o.Gateways, err = parseAll("gateway", f.gateways, parseAddr); err != nil {
		return o, err
	}
	if o.Logger, err = f.logger(); err != nil {
		return o, err
	}
	if o.Sched, err = schedOptions(); err != nil {
		return o, err
	}
	o.Server, err = f.serverCommand()
	return o, err
}

// checkNumbers checks the flags that stand for numbers, words and addresses of which
// nobody else says what is wrong.
func (f *flags) checkNumbers() error {
	const minMTU, maxMTU = 68, 65535
	switch _, err := net.ParseMAC(f.mac); {
	case f.mac != "" && err != nil:
		return fmt.Errorf("--mac %q: accepted: a MAC address such as 02:00:00:00:00:01", f.mac)
	case !slices.Contains([]string{"", "afxdp", "tap", "afpacket"}, f.driver):
		return fmt.Errorf("--driver %q: accepted: afxdp, tap, afpacket", f.driver)
	case f.mtu != 0 && (f.mtu < minMTU || f.mtu > maxMTU):
		return fmt.Errorf("--mtu %d: accepted: %d to %d", f.mtu, minMTU, maxMTU)
	case f.hangAfter < 0:
		return fmt.Errorf("--hang-after %v: accepted: a duration such as 250ms", f.hangAfter)
	case f.spin < 0:
		return fmt.Errorf("--spin %v: accepted: a duration such as 50us", f.spin)
	}
	if _, _, err := net.SplitHostPort(f.metrics); f.metrics != "" && err != nil {
		return fmt.Errorf("--metrics %q: accepted: an address and a port, such as 127.0.0.1:9100", f.metrics)
	}
	return nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("accepted: an address with its prefix length, such as 198.18.0.2/24")
	}
	return p, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, errors.New("accepted: an address such as 198.18.0.1")
	}
	return a, nil
}

func parseAll[T any](flag string, texts []string, parse func(string) (T, error)) (all []T, err error) {
	for _, t := range texts {
		v, err := parse(t)
		if err != nil {
			return nil, fmt.Errorf("--%s %q: %w", flag, t, err)
		}
		all = append(all, v)
	}
	return all, nil
}

func (f *flags) logger() (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: accepted: debug, info, warn, error", f.logLevel)
	}
	opts.Level = level
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return nil, fmt.Errorf("--log %q: accepted: text, json", f.logFormat)
}

// serverCommand finds the network server's program.
func (f *flags) serverCommand() ([]string, error) {
	path := f.server
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find netserver: %w; give its path with --netserver", err)
		}
		path = filepath.Join(filepath.Dir(self), "netserver")
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("network server: %w; build it, or give its path with --netserver", err)
	}
	return []string{path}, nil
}
