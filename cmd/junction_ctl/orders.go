package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/internal/usage"
	"junction/netserver"
)

func (c *ctl) upgrade(ctx context.Context, args []string) error {
	if args[0] != "netserver" {
		return usage.Errorf("upgrade %q: only netserver can be upgraded", args[0])
	}
	path, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	var s monitor.ServerStatus
	if err := c.order(ctx, "upgrade", wire.Upgrade{Path: path}, &s); err != nil {
		return err
	}
	return c.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "netserver\tpid %d\toutage %v\n", s.PID, s.LastOutage)
	})
}

func (c *ctl) limitCommand() *cobra.Command {
	var rate string
	var weight uint32
	var cmd *cobra.Command
	cmd = command("limit NAME [--rate RATE] [--weight W]", "Limit how fast an instance, by name or number, may send, and set its weight", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error {
			var l wire.Limit
			if !cmd.Flags().Changed("rate") && !cmd.Flags().Changed("weight") {
				return usage.Errorf("limit: give --rate, --weight or both; see junction_ctl limit --help")
			}
			if cmd.Flags().Changed("rate") {
				bytes, err := parseRate(rate)
				if err != nil {
					return usage.Errorf("--rate %q: %w", rate, err)
				}
				l.Rate = &bytes
			}
			if cmd.Flags().Changed("weight") {
				if weight < 1 || weight > netserver.MaxWeight {
					return usage.Errorf("--weight %d: accepted: 1 to %d", weight, netserver.MaxWeight)
				}
				l.Weight = &weight
			}
			return c.limit(ctx, args[0], l)
		})
	cmd.Flags().StringVar(&rate, "rate", "", "bits per second, such as 500k, 100m or 1g; 0: no limit")
	cmd.Flags().Uint32Var(&weight, "weight", 1, fmt.Sprintf("part of a busy uplink in proportion to others', 1 to %d; at first 8 with priority lc, else 1", netserver.MaxWeight))
	return cmd
}

func (c *ctl) limit(ctx context.Context, name string, l wire.Limit) error {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return err
	}
	i, err := find(s.Instances, name)
	if err != nil {
		return err
	}
	l.ID = i.ID
	if err := c.order(ctx, "limit", l, &i); err != nil {
		return err
	}
	return c.print(i, func(w io.Writer) {
		rate := "no limit"
		if i.Rate > 0 {
			rate = fmt.Sprintf("%d bytes per second", i.Rate)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\tweight %d\n", i.ID, i.Name, rate, i.Weight)
	})
}

// parseRate reads bits per second and returns bytes per second.
func parseRate(s string) (uint64, error) {
	accepted := errors.New("accepted: bits per second, such as 500k, 100m or 1g, or 0 for no limit")
	if s == "" {
		return 0, accepted
	}
	factor := 1.0
	switch s[len(s)-1] {
	case 'k', 'K':
		factor = 1e3
	case 'm', 'M':
		factor = 1e6
	case 'g', 'G':
		factor = 1e9
	}
	if factor > 1 {
		s = s[:len(s)-1]
	}
	const bitsPerByte, most = 8, 1e13
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n*factor > most {
		return 0, accepted
	}
	bytes := n * factor / bitsPerByte
	if n > 0 && bytes < 1 {
		bytes = 1
	}
	return uint64(bytes), nil
}
