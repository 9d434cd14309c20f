package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"junction/direct/steer/scope"
	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

const switchLong = `switch changes how an instance's packets go while they flow: in server mode
through the network server, in direct mode through a queue of the instance's
own. Addresses and connections stay. It ends when the switch has, and prints the
longest time for which the switch kept a packet back (blackout_us), frames that
were on their way by the old path, lost, came twice and out of order. When the
switch is rolled back it says why and which mode the instance is in, and fails.

--ports, with --mode direct, has only these local ports in direct mode, such as
80,443/tcp,5000-5010/udp; packets of others, fragments, and what has no ports stay
with the network server. It need not have a port open yet, and may close it and
open it again. From one list to another, or to all ports, it goes by way of server
mode, and stays there if its queue is taken meanwhile (--wait then waits for one).

--auto on begins a policy that has the busiest instances in direct mode, by
packets per second, and takes the queue of one back that needs it no more or far
less than another; junction_ctl status tells what it decided and why. It leaves
an instance alone that has been switched by hand, or was started with --mode
direct, until --mode auto leaves that to the policy again. --wait counts: the
policy gives up a queue for who waits for one.`

// switchFlags are the flags of switch.
type switchFlags struct {
	mode, auto string
	ports      string
	wait, all  bool
	queues     int
	rate       float64
}

// modeAuto leaves an instance to the policy.
const modeAuto = "auto"

func (c *ctl) switchCommand() *cobra.Command {
	var f switchFlags
	var cmd *cobra.Command
	cmd = command("switch NAME --mode direct|server|auto", "Switch an instance, by name or number, to the other mode while packets flow",
		func(_ *cobra.Command, args []string) error { return f.check(cmd, args) },
		func(ctx context.Context, args []string) error {
			if f.auto != "" {
				return c.setAuto(ctx, f.policy(cmd))
			}
			o, err := f.order(cmd)
			if err != nil {
				return err
			}
			return c.switchThem(ctx, args, &f, o)
		})
	cmd.Long = switchLong
	cmd.Flags().StringVar(&f.mode, "mode", "", "direct, server, or auto: as the policy says")
	cmd.Flags().StringVar(&f.ports, "ports", "", "with --mode direct: these local ports only, such as 80,443/tcp,5000-5010/udp; default: all")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until no other switch of the instance is under way, and in a line for a free queue")
	cmd.Flags().BoolVar(&f.all, "all", false, "all instances, one after the other")
	cmd.Flags().StringVar(&f.auto, "auto", "", "on or off: the policy that switches by itself, instead of a NAME")
	cmd.Flags().IntVar(&f.queues, "queues", 0, "with --auto on: how many instances may be in direct mode; default: as before")
	cmd.Flags().Float64Var(&f.rate, "rate", 0, "with --auto on: from how many packets per second an instance is worth a queue; default: as before")
	return cmd
}

// check checks what belongs together.
func (f *switchFlags) check(cmd *cobra.Command, args []string) error {
	given := cmd.Flags().Changed
	switch {
	case f.auto == "" && (given("queues") || given("rate")):
		return errors.New("switch: --queues and --rate are the policy's: give --auto on with them")
	case f.auto == "" && (f.all == (len(args) == 1) || len(args) > 1):
		return errors.New("switch: give the NAME of one instance, or --all")
	case f.auto == "":
		_, err := f.order(cmd)
		return err
	case f.auto != "on" && f.auto != "off":
		return fmt.Errorf("switch: --auto %q: accepted: on, off", f.auto)
	case f.auto == "off" && (given("queues") || given("rate")):
		return errors.New("switch: --queues and --rate have no meaning with --auto off")
	case given("queues") && f.queues < 1:
		return fmt.Errorf("switch: --queues %d: accepted: from 1 to junctiond's --direct-queues", f.queues)
	case given("rate") && !(f.rate > 0): // nor NaN
		return fmt.Errorf("switch: --rate %v: accepted: packets per second, above 0", f.rate)
	case len(args) > 0 || f.all || f.wait || f.mode != "" || given("ports"):
		return errors.New("switch: --auto is for all instances; to leave one to the policy: switch NAME --mode auto")
	}
	return nil
}

// parseMode reads --mode; modeAuto is none.
func (f *switchFlags) parseMode() (protocol.Mode, error) {
	if f.mode == modeAuto {
		return 0, nil
	}
	m, err := protocol.ParseMode(f.mode)
	if err != nil {
		return 0, fmt.Errorf("switch: --mode %q: accepted: direct, server, auto", f.mode)
	}
	return m, nil
}

// order makes what is asked of junctiond, but for the instance.
func (f *switchFlags) order(cmd *cobra.Command) (o wire.SwitchOrder, err error) {
	o.Wait = f.wait
	if o.Mode, err = f.parseMode(); err != nil {
		return o, err
	}
	if f.mode == modeAuto && f.wait {
		return o, errors.New("switch: --wait has no meaning with --mode auto, which switches nothing by itself")
	}
	if !cmd.Flags().Changed("ports") {
		return o, nil
	}
	if f.mode != protocol.Direct.String() {
		return o, errors.New("switch: --ports goes with --mode direct")
	}
	if o.Ports, err = scope.Parse(f.ports); err != nil {
		err = fmt.Errorf("switch: --ports: %w", err)
	}
	return o, err
}

func (f *switchFlags) policy(cmd *cobra.Command) wire.Auto {
	o := wire.Auto{On: f.auto == "on"}
	if cmd.Flags().Changed("queues") {
		o.Queues = &f.queues
	}
	if cmd.Flags().Changed("rate") {
		o.Rate = &f.rate
	}
	return o
}

func (c *ctl) setAuto(ctx context.Context, o wire.Auto) error {
	var s monitor.AutoStatus
	if err := c.order(ctx, "auto", o, &s); err != nil {
		return err
	}
	return c.print(s, func(w io.Writer) { writeAuto(w, &s) })
}

// switchThem does one, or all: it goes on with the next when one could not be switched.
func (c *ctl) switchThem(ctx context.Context, args []string, f *switchFlags, order wire.SwitchOrder) error {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return err
	}
	if !f.all {
		i, err := find(s.Instances, args[0])
		if err != nil {
			return err
		}
		s.Instances = []monitor.InstanceStatus{i}
	}
	var errs []error
	for _, i := range s.Instances {
		errs = append(errs, c.switchOne(ctx, i, f, order))
	}
	return errors.Join(errs...)
}

func (c *ctl) switchOne(ctx context.Context, i monitor.InstanceStatus, f *switchFlags, order wire.SwitchOrder) error {
	if f.mode == modeAuto {
		return c.unpin(ctx, i)
	}
	o, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer o.Close()
	order.ID = i.ID
	r, err := o.Switch(ctx, order)
	if err != nil {
		return err
	}
	if err := c.print(r, func(w io.Writer) { writeSwitch(w, &r) }); err != nil || r.Reason == "" {
		return err
	}
	return fmt.Errorf("switch %s to %v: %s; it is in %s mode", r.Name, r.To, r.Reason, modeText(r.Mode.String(), r.Ports))
}

// unpin leaves an instance to the policy.
func (c *ctl) unpin(ctx context.Context, i monitor.InstanceStatus) error {
	var now monitor.InstanceStatus
	if err := c.order(ctx, "unpin", wire.Target{ID: i.ID}, &now); err != nil {
		return err
	}
	return c.print(now, func(w io.Writer) { fmt.Fprintf(w, "%d\t%s\t%s\tleft to the policy\n", i.ID, i.Name, i.Mode) })
}

// writeAuto writes the policy and what it did last.
func writeAuto(w io.Writer, s *monitor.AutoStatus) {
	if !s.On {
		fmt.Fprintln(w, "auto\toff")
		return
	}
	fmt.Fprintf(w, "auto\ton\tfrom %.0f packets/s, %d queues\tswitches %d, instances pinned by hand %d\n", s.Rate, s.Queues, s.Switches, s.Pinned)
	for _, d := range s.Decisions {
		fmt.Fprintf(w, "\t%v ago\t%s to %v at %.0f packets/s: %s\t%s\n", seconds(d.AgeSeconds), d.Name, d.To, d.RatePPS, d.Reason, d.Outcome)
	}
}

func writeSwitch(w io.Writer, r *wire.SwitchResult) {
	if r.Reason != "" {
		return // the error says all
	}
	if r.From == r.Mode && !r.ViaServer {
		fmt.Fprintf(w, "%d\t%s\tis in %s mode already\n", r.ID, r.Name, modeText(r.Mode.String(), r.Ports))
		return
	}
	via := ""
	if r.ViaServer {
		via = ", by way of server mode"
	}
	fmt.Fprintf(w, "%d\t%s\t%v to %s%s\tblackout %v\tin flight %d\tlost %d\tdoubled %d\treordered %d\n",
		r.ID, r.Name, r.From, modeText(r.Mode.String(), r.Ports), via, micros(r.BlackoutUS), r.InFlight, r.Lost, r.Duplicates, r.Reordered)
	for _, s := range r.Steps {
		fmt.Fprintf(w, "\t%s\t%v\n", s.Name, micros(s.US))
	}
}

func micros(us float64) time.Duration {
	return time.Duration(us * float64(time.Microsecond)).Round(time.Microsecond)
}
