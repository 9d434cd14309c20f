package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

const switchLong = `switch changes how an instance's packets go while they flow: in server mode
through the network server, in direct mode through a queue of the instance's
own. Addresses and connections stay. It ends when the switch has, and prints the
longest time for which the switch kept a packet back (blackout_us), frames that
were on their way by the old path, lost, came twice and out of order. When the
switch is rolled back it says why and which mode the instance is in, and fails.`

func (c *ctl) switchCommand() *cobra.Command {
	var mode string
	var wait, all bool
	cmd := command("switch NAME --mode direct|server", "Switch an instance, by name or number, to the other mode while packets flow",
		func(_ *cobra.Command, args []string) error {
			if all == (len(args) == 1) || len(args) > 1 {
				return errors.New("switch: give the NAME of one instance, or --all")
			}
			return nil
		},
		func(ctx context.Context, args []string) error {
			to, err := protocol.ParseMode(mode)
			if err != nil {
				return fmt.Errorf("--mode: %w", err)
			}
			if all {
				return c.switchAll(ctx, to, wait)
			}
			var s monitor.Status
			if err := c.ask(ctx, "status", &s); err != nil {
				return err
			}
			i, err := find(s.Instances, args[0])
			if err != nil {
				return err
			}
			return c.switchOne(ctx, i, to, wait)
		})
	cmd.Long = switchLong
	cmd.Flags().StringVar(&mode, "mode", "", "direct or server")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until a queue is free and no other switch of the instance is under way")
	cmd.Flags().BoolVar(&all, "all", false, "all instances, one after the other")
	return cmd
}

// switchAll goes on with the next instance when one could not be switched.
func (c *ctl) switchAll(ctx context.Context, to protocol.Mode, wait bool) error {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return err
	}
	var errs []error
	for _, i := range s.Instances {
		errs = append(errs, c.switchOne(ctx, i, to, wait))
	}
	return errors.Join(errs...)
}

func (c *ctl) switchOne(ctx context.Context, i monitor.InstanceStatus, to protocol.Mode, wait bool) error {
	o, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer o.Close()
	r, err := o.Switch(ctx, wire.SwitchOrder{Target: wire.Target{ID: i.ID}, Mode: to, Wait: wait})
	if err != nil {
		return err
	}
	if err := c.print(r, func(w io.Writer) { writeSwitch(w, &r) }); err != nil || r.Reason == "" {
		return err
	}
	return fmt.Errorf("switch %s to %v: %s; it is in %v mode", r.Name, r.To, r.Reason, r.Mode)
}

func writeSwitch(w io.Writer, r *wire.SwitchResult) {
	if r.Reason != "" {
		return // the error says all
	}
	fmt.Fprintf(w, "%d\t%s\t%v to %v\tblackout %v\tin flight %d\tlost %d\tdoubled %d\treordered %d\n",
		r.ID, r.Name, r.From, r.Mode, micros(r.BlackoutUS), r.InFlight, r.Lost, r.Duplicates, r.Reordered)
	for _, s := range r.Steps {
		fmt.Fprintf(w, "\t%s\t%v\n", s.Name, micros(s.US))
	}
}

func micros(us float64) time.Duration {
	return time.Duration(us * float64(time.Microsecond)).Round(time.Microsecond)
}
