package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"junction/direct/steer/scope"
	"junction/internal/monitor"
	"junction/netserver"
)

// tabulate aligns what f writes with tabs between columns.
func tabulate(out io.Writer, f func(io.Writer)) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	f(t)
	return t.Flush()
}

func writeStatus(w io.Writer, s monitor.Status) {
	fmt.Fprintf(w, "monitor\tpid %d\tup %v\n", s.PID, seconds(s.UptimeSeconds))
	state := "starting"
	if s.Server.Ready {
		state = "ready"
	}
	fmt.Fprintf(w, "netserver\tpid %d\t%s\trestarts %d, of these hung %d\n", s.Server.PID, state, s.Server.Restarts, s.Server.Hangs)
	if s.Server.LastEnd != "" {
		fmt.Fprintf(w, "\tlast one\t%s\toutage %v\n", s.Server.LastEnd, s.Server.LastOutage)
	}
	u := s.Server.Uplink
	fmt.Fprintf(w, "uplink\t%s\t%s %s %s, %d queues\tmac %s mtu %d gso %d\n",
		u.Mode.NIC, u.Mode.Driver, u.Mode.Attach, u.Mode.Copy, u.Mode.Queues, u.MAC, u.MTU, u.GSOMax)
	for _, warning := range u.Mode.Warnings {
		fmt.Fprintf(w, "\twarning\t%s\n", warning)
	}
	fmt.Fprintf(w, "shared\t%s\n", prefixes(s.Shared))
	if len(s.Dedicated) > 0 {
		fmt.Fprintf(w, "dedicated\t%s\n", prefixes(s.Dedicated))
	}
	writeAuto(w, &s.Auto)
	fmt.Fprintf(w, "instances\t%d\n", len(s.Instances))
	for _, i := range s.Instances {
		if mode := modeText(i.Mode, i.DirectPorts); s.Auto.On {
			fmt.Fprintf(w, "\t%s\t%s mode, %.0f packets/s\t%s\n", i.Name, mode, i.RatePPS, i.Reason)
		} else if i.DirectPorts != nil {
			fmt.Fprintf(w, "\t%s\t%s mode\n", i.Name, mode)
		}
	}
	for _, o := range s.Offences {
		fmt.Fprintf(w, "offence\t%q\t%s\t%d times, last pid %d\n", o.Name, o.Kind, o.Count, o.PID)
	}
}

// modeText names the mode, with the ports that are in it if only some are.
func modeText(mode string, ports *scope.Ports) string {
	if ports == nil {
		return mode
	}
	return fmt.Sprintf("%s (ports %v)", mode, ports)
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}

func prefixes(all []netip.Prefix) string {
	var texts []string
	for _, p := range all {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, " ")
}

func writeInstances(w io.Writer, all []monitor.InstanceStatus) {
	fmt.Fprintln(w, "ID\tNAME\tPID\tMODE\tADDRESS\tPRIORITY\tWEIGHT\tRATE\tAGE")
	for _, i := range all {
		shared := ""
		if i.Shared {
			shared = " (shared)"
		}
		rate := "-"
		if i.Rate > 0 {
			rate = fmt.Sprintf("%d B/s", i.Rate)
		}
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s%s\t%s\t%d\t%s\t%v\n", i.ID, i.Name, i.PID, modeText(i.Mode, i.DirectPorts), prefixes(i.Addresses), shared, i.Priority, i.Weight, rate, seconds(i.AgeSeconds))
	}
}

func writePorts(w io.Writer, all []monitor.PortStatus) {
	fmt.Fprintln(w, "PROTO\tADDRESS\tSTATE\tMODE\tID\tNAME")
	for _, p := range all {
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%d\t%s\n", p.Proto, p.Endpoint, p.State, p.Mode, p.ID, p.Name)
	}
}

func writeDetail(w io.Writer, d detail) {
	writeInstances(w, []monitor.InstanceStatus{d.InstanceStatus})
	if d.PortsRefused > 0 {
		fmt.Fprintf(w, "ports refused\t%d, for it has its share\n", d.PortsRefused)
	}
	if d.Switching != "" {
		fmt.Fprintf(w, "switching\t%s\n", d.Switching)
	}
	if d.Reason != "" {
		fmt.Fprintf(w, "auto\t%.0f packets/s\t%s\n", d.RatePPS, d.Reason)
	} else if d.Pinned {
		fmt.Fprintln(w, "auto\toff, and pinned by hand")
	}
	if r := d.LastSwitch; r != nil {
		fmt.Fprintf(w, "last switch\t%v to %v\t%s\tblackout %v\tlost %d\n", r.From, r.To, cmp.Or(r.Reason, "done"), micros(r.BlackoutUS), r.Lost)
	}
	if len(d.Ports) > 0 {
		fmt.Fprintln(w)
		writePorts(w, d.Ports)
	}
	if d.Traffic != nil {
		fmt.Fprintln(w)
		writeTraffic(w, d.Name, d.Traffic.AccountStats, d.Traffic.ToInstance)
	}
}

func writeStats(w io.Writer, s netserver.Stats) {
	writeTraffic(w, "uplink", s.Uplink, 0)
	for _, id := range slices.Sorted(maps.Keys(s.Ports)) {
		p := s.Ports[id]
		writeTraffic(w, fmt.Sprintf("%d %s", id, p.Name), p.AccountStats, p.ToInstance)
	}
	writeTraffic(w, "(left)", s.Gone, 0)
}

func writeTraffic(w io.Writer, name string, a netserver.AccountStats, to uint64) {
	fmt.Fprintf(w, "%s\tin %d\tbytes %d\tout %d\tmade %d\tanswered %d\treceived %d\n", name, a.In, a.InBytes, a.Out, a.Made, a.Answered, to)
	for _, reason := range slices.Sorted(maps.Keys(a.Drops)) {
		fmt.Fprintf(w, "\tdrop %s\t%d\n", reason, a.Drops[reason])
	}
}
