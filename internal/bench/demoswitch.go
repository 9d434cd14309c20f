package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"junction/internal/bench/clients"
	"junction/internal/bench/load"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// demoConnections stay open while a server is switched.
const demoConnections = 50

// demoLeast is how many requests a phase has at the least, also on a machine with
// too much to do.
const demoLeast = 1000

// DemoSwitched is what a load has seen of a server that was switched.
type DemoSwitched struct {
	Load string
	// Phases follow each other on the same connections; only the last one, native,
	// has a server and connections of its own.
	Phases   []DemoPhase
	Switches []wire.SwitchResult
}

// DemoPhase is a part of a load.
type DemoPhase struct {
	Name   string
	Result clients.Result
	Gap    time.Duration // the longest time without an answer
	First  error         // of those that Result counts
}

// demoSwitcher makes a DemoSwitched.
type demoSwitcher struct {
	r      *runner
	demo   demoLoad
	length time.Duration // of a phase without a switch
	seen   DemoSwitched
}

// showSwitch loads one server behind the network server while it is switched to
// direct mode and back, and the same server native.
func (d *Demo) showSwitch(ctx context.Context, r *runner, sys System, demo demoLoad) error {
	s := demoSwitcher{r: r, demo: demo, length: 2 * time.Second}
	if r.o.Quick {
		s.length = 200 * time.Millisecond
	}
	s.seen.Load = fmt.Sprintf("%s, %d connections", demo.asked, demoConnections)
	err := s.under(ctx, sys, s.thereAndBack)
	if err == nil {
		err = s.under(ctx, Native{}, func(ctx context.Context, on *busy) error {
			return s.stay(ctx, on, Native{}.Name())
		})
	}
	d.Switched = append(d.Switched, s.seen)
	return err
}

// under has use work with a load on the server under a system.
func (s *demoSwitcher) under(ctx context.Context, sys System, use func(context.Context, *busy) error) error {
	p, err := s.demo.server(s.r)
	if err != nil {
		return err
	}
	return s.r.serve(ctx, sys, p, probeTCP(s.r.lab, s.demo.port), func(server *server) error {
		return s.r.loaded(ctx, server, s.demo.port, demoConnections, s.demo.exchange, func(on *busy) error {
			warm := on.load.Mark()
			err := use(ctx, on)
			s.seen.Phases[len(s.seen.Phases)-1].addErrors(warm)
			return err
		})
	})
}

// thereAndBack stays in each mode for a while.
func (s *demoSwitcher) thereAndBack(ctx context.Context, on *busy) error {
	if err := s.stay(ctx, on, "server"); err != nil {
		return err
	}
	for _, next := range []struct {
		mode protocol.Mode
		name string
	}{{protocol.Direct, "direct"}, {protocol.Server, "server again"}} {
		turn := func() error {
			results, err := on.to(ctx, next.mode)
			s.seen.Switches = append(s.seen.Switches, results...)
			return err
		}
		if err := s.phase(on, fmt.Sprintf("switch to %v", next.mode), turn); err != nil {
			return err
		}
		if err := s.stay(ctx, on, next.name); err != nil {
			return err
		}
	}
	return nil
}

// stay lets the load go on, for long enough to say something about it.
func (s *demoSwitcher) stay(ctx context.Context, on *busy, name string) error {
	return s.phase(on, name, func() error {
		return errors.Join(on.load.For(ctx, s.length), on.load.Wait(ctx, demoLeast))
	})
}

// phase does something under load and notes what the load has seen meanwhile.
func (s *demoSwitcher) phase(on *busy, name string, do func() error) error {
	s.r.o.Progress(s.seen.Load + ", " + name)
	err := do()
	p := on.load.Mark()
	s.seen.Phases = append(s.seen.Phases, DemoPhase{name, p.Result(), p.Gap, p.First})
	return err
}

// addErrors counts errors of a phase that is not shown.
func (p *DemoPhase) addErrors(other load.Phase) {
	p.Result.Errors += other.Errors
	if p.First == nil {
		p.First = other.First
	}
}

// writeSwitched writes what was seen of switches.
func (d *Demo) writeSwitched(w io.Writer) error {
	fmt.Fprintf(w, "\nServers behind the network server that are switched to queues of their own and back, under loads whose\nconnections stay open; each answer is compared byte by byte:\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "load\tmode\trequests\terrors\trequests/s\tp50 ms\tp99 ms\tlongest gap ms\tratio\t")
	for _, s := range d.Switched {
		name, native := s.Load, s.Phases[len(s.Phases)-1].Result.PerSecond
		for _, p := range s.Phases {
			gap := fmt.Sprintf("%.1f\t", p.Gap.Seconds()*1e3)
			writeDemoRow(t, name, p.Name, p.Result, gap+ratioOf(p.Result.PerSecond, native))
			name = ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "load\tswitch\tblackout ms\twhole switch ms\tin flight\tlost\ttwice\tout of order\t")
	for _, s := range d.Switched {
		name := s.Load
		for _, r := range s.Switches {
			fmt.Fprintf(t, "%s\t%v to %v\t%.3f\t%.0f\t%d\t%d\t%d\t%d\t%s\n", name, r.From, r.To,
				r.BlackoutUS/1e3, r.TotalUS/1e3, r.InFlight, r.Lost, r.Duplicates, r.Reordered, rolledBack(&r))
			name = ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\nblackout: the longest time for which the switch itself kept a packet back. gap: without any answer.\n")
	return err
}

func rolledBack(r *wire.SwitchResult) string {
	if r.Reason == "" {
		return ""
	}
	return " rolled back: " + r.Reason
}
