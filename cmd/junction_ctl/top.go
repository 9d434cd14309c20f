package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"junction/internal/bench/proctree"
	"junction/internal/monitor"
	"junction/internal/usage"
	"junction/netserver"
)

func (c *ctl) topCommand() *cobra.Command {
	var interval time.Duration
	cmd := command("top", "Show what instances and the network server use, until interrupted; with --json once", cobra.NoArgs,
		func(ctx context.Context, _ []string) error { return c.top(ctx, interval) })
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time that each picture stands for")
	return cmd
}

// Limits of --interval: CPU time is known in units of 10 ms.
const (
	minInterval = 100 * time.Millisecond
	maxInterval = time.Hour
)

func (c *ctl) top(ctx context.Context, interval time.Duration) error {
	if interval < minInterval || interval > maxInterval {
		return usage.Errorf("--interval %v: want %v to %v", interval, minInterval, maxInterval)
	}
	before, err := c.snapshot(ctx)
	if err != nil {
		return err
	}
	for {
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return nil
		}
		now, err := c.snapshot(ctx)
		if ctx.Err() != nil {
			return nil // interrupted
		}
		if err != nil {
			return err
		}
		t := now.since(before)
		if f, ok := c.out.(*os.File); ok && !c.json && isTerminal(f) {
			fmt.Fprint(c.out, "\x1b[H\x1b[2J") // home, clear
		}
		if err := c.print(t, func(w io.Writer) { writeTop(w, t) }); err != nil || c.json {
			return err
		}
		before = now
	}
}

// tally is a picture of all counters.
type tally struct {
	at        time.Time
	instances []monitor.InstanceStatus
	serverPID int
	cpu       map[int]time.Duration // by PID, with descendants; absent: it has ended, or is in another PID namespace
	traffic   netserver.Stats
}

func (c *ctl) snapshot(ctx context.Context) (u tally, err error) {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return u, err
	}
	// Without a network server there is no traffic.
	if err := c.ask(ctx, "stats", &u.traffic); err != nil && s.Server.Ready {
		return u, err
	}
	u.at, u.instances, u.serverPID, u.cpu = time.Now(), s.Instances, s.Server.PID, make(map[int]time.Duration)
	pids := []int{u.serverPID}
	for _, i := range s.Instances {
		pids = append(pids, int(i.PID))
	}
	for _, pid := range pids {
		if cpu, err := proctree.CPU(pid); err == nil && pid > 0 {
			u.cpu[pid] = cpu
		}
	}
	return u, nil
}

// topTable is what top prints.
type topTable struct {
	Schema          int      `json:"schema"`
	IntervalSeconds float64  `json:"interval_seconds"`
	Server          topRow   `json:"netserver"` // received: from the wire; sent: what became of it
	Instances       []topRow `json:"instances"`
}

// topRow is what one process and its children did in a second, on average.
type topRow struct {
	ID         uint32  `json:"id"`
	Name       string  `json:"name"`
	PID        int     `json:"pid"`
	CPUPercent float64 `json:"cpu_percent"` // of one processor
	// Sent and received as the instance sees it.
	SentPPS       float64 `json:"sent_pps"`
	SentBytes     float64 `json:"sent_bytes_per_second"`
	ReceivedPPS   float64 `json:"received_pps"`
	ReceivedBytes float64 `json:"received_bytes_per_second"`
	// Drops of what it sent, or of what came from the wire.
	DropsPPS float64 `json:"drops_pps"`
}

// since returns what happened between two pictures. A counter that went back is
// one that began anew: with another network server, or another instance.
func (u *tally) since(before tally) topTable {
	seconds := u.at.Sub(before.at).Seconds()
	rate := func(now, then uint64) float64 {
		if now < then {
			then = 0
		}
		return float64(now-then) / seconds
	}
	cpu := func(pid int) float64 {
		const percent = 100
		return max(0, (u.cpu[pid]-before.cpu[pid]).Seconds()/seconds*percent)
	}
	t := topTable{Schema: 1, IntervalSeconds: seconds, Instances: []topRow{}}
	wire, wireBefore := u.traffic.Uplink, before.traffic.Uplink
	t.Server = topRow{Name: "netserver", PID: u.serverPID, CPUPercent: cpu(u.serverPID),
		ReceivedPPS: rate(wire.In, wireBefore.In), ReceivedBytes: rate(wire.InBytes, wireBefore.InBytes),
		DropsPPS: rate(drops(wire), drops(wireBefore)), SentPPS: rate(wire.Out, wireBefore.Out)}
	for _, i := range u.instances {
		now, then := u.traffic.Ports[i.ID], before.traffic.Ports[i.ID]
		t.Instances = append(t.Instances, topRow{ID: i.ID, Name: i.Name, PID: int(i.PID), CPUPercent: cpu(int(i.PID)),
			SentPPS: rate(now.In, then.In), SentBytes: rate(now.InBytes, then.InBytes),
			ReceivedPPS: rate(now.ToInstance, then.ToInstance), ReceivedBytes: rate(now.ToInstanceBytes, then.ToInstanceBytes),
			DropsPPS: rate(drops(now.AccountStats), drops(then.AccountStats))})
	}
	slices.SortStableFunc(t.Instances, func(a, b topRow) int { return cmp.Compare(b.CPUPercent, a.CPUPercent) })
	return t
}

func drops(a netserver.AccountStats) (sum uint64) {
	for _, n := range a.Drops {
		sum += n
	}
	return sum
}

func writeTop(w io.Writer, t topTable) {
	fmt.Fprintln(w, "ID\tNAME\tPID\tCPU %\tSENT/s\tMB/s\tRECEIVED/s\tMB/s\tDROPPED/s")
	for _, r := range append([]topRow{t.Server}, t.Instances...) {
		const mega = 1e6
		fmt.Fprintf(w, "%d\t%s\t%d\t%.1f\t%.0f\t%.2f\t%.0f\t%.2f\t%.0f\n", r.ID, r.Name, r.PID, r.CPUPercent,
			r.SentPPS, r.SentBytes/mega, r.ReceivedPPS, r.ReceivedBytes/mega, r.DropsPPS)
	}
}
