// Package schedsim judges policies of core scheduling in the simulator: tail
// latency, use of the cores, and what the scheduling costs, by load.
package schedsim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"junction/coresched/policies"
	"junction/coresched/sim"
)

// Options are what to simulate. Zero values mean the defaults.
type Options struct {
	Policies []string  // default all
	Workload string    // default rocksdb
	Loads    []float64 // default 0.1 to 0.9
	Cores    int       // default 8
	Cost     string    // default ghost
	Seed     uint64
	Requests int // for each point; default 200,000
}

func (o Options) withDefaults() Options {
	if len(o.Policies) == 0 {
		o.Policies = policies.Names()
	}
	if o.Workload == "" {
		o.Workload = "rocksdb"
	}
	if len(o.Loads) == 0 {
		o.Loads = []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
	}
	if o.Cores == 0 {
		o.Cores = 8
	}
	if o.Cost == "" {
		o.Cost = sim.Ghost.Name
	}
	if o.Requests == 0 {
		o.Requests = 200_000
	}
	return o
}

// Report is what came of it.
type Report struct {
	Schema   int     `json:"schema"`
	Workload string  `json:"workload"`
	Cores    int     `json:"cores"`
	Cost     string  `json:"cost"`
	Seed     uint64  `json:"seed"`
	Requests int     `json:"requests"`
	Points   []Point `json:"points"`
}

// Point is one policy at one load. Shares are of the cores' time, also that of an
// agent that has a core of its own.
type Point struct {
	Policy       string  `json:"policy"`
	Load         float64 `json:"load"`
	ShortP50     float64 `json:"short_p50_us"`
	ShortP99     float64 `json:"short_p99_us"`
	ShortP999    float64 `json:"short_p999_us"`
	LongP99      float64 `json:"long_p99_us"`
	Utilisation  float64 `json:"utilisation"`
	Switching    float64 `json:"switching"`
	Agent        float64 `json:"agent"`
	Transactions float64 `json:"transactions_per_request"`
}

// Sweep simulates each policy at each load.
func Sweep(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	r := &Report{1, o.Workload, o.Cores, o.Cost, o.Seed, o.Requests, nil}
	for _, name := range o.Policies {
		for _, load := range o.Loads {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			p, err := point(o, name, load)
			if err != nil {
				return nil, fmt.Errorf("%s at load %v: %w", name, load, err)
			}
			r.Points = append(r.Points, p)
		}
	}
	return r, nil
}

func point(o Options, name string, load float64) (Point, error) {
	policy, err := policies.New(name, nil)
	if err != nil {
		return Point{}, err
	}
	cost, err := sim.CostByName(o.Cost)
	if err != nil {
		return Point{}, err
	}
	all, _, err := sim.Workload(o.Workload, load, o.Cores, 1, 0)
	if err != nil {
		return Point{}, err
	}
	r, err := sim.Run(sim.Config{
		Policy: policy, Cores: o.Cores, Cost: cost, Seed: o.Seed, Instances: all, Requests: o.Requests, Warmup: o.Requests / 10,
	})
	if err != nil {
		return Point{}, err
	}
	agent := r.Agent
	if !policy.Traits().PerCPU {
		agent /= float64(o.Cores)
	}
	return Point{
		name, load, us(&r.Short, 0.5), us(&r.Short, 0.99), us(&r.Short, 0.999), us(&r.Long, 0.99),
		r.Utilisation, r.Switching, agent, float64(r.Counts.Txns) / float64(max(r.Completed, 1)),
	}, nil
}

func us(h *sim.Hist, q float64) float64 { return float64(h.Quantile(q)) / float64(time.Microsecond) }

// WriteJSON writes the report to a file.
func (r *Report) WriteJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// WriteTables writes one table for each figure, a row for each policy.
func (r *Report) WriteTables(out io.Writer) error {
	fmt.Fprintf(out, "%s on %d cores, costs: %s, %d requests a point, seed %d\n", r.Workload, r.Cores, r.Cost, r.Requests, r.Seed)
	for _, f := range figures {
		if err := r.writeTable(out, f); err != nil {
			return err
		}
	}
	return nil
}

// figure is one of the things that are shown by load.
type figure struct {
	title  string
	format string
	log    bool
	value  func(*Point) float64
}

var figures = []figure{
	{"p99 of short requests, µs", "%.1f", true, func(p *Point) float64 { return p.ShortP99 }},
	{"p99.9 of short requests, µs", "%.1f", true, func(p *Point) float64 { return p.ShortP999 }},
	{"use of the cores", "%.3f", false, func(p *Point) float64 { return p.Utilisation }},
	{"time of agents and switches, share of the cores", "%.3f", false, func(p *Point) float64 { return p.Switching + p.Agent }},
}

func (r *Report) writeTable(out io.Writer, f figure) error {
	fmt.Fprintf(out, "\n%s\n", f.title)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "load\t")
	for _, load := range r.loads() {
		fmt.Fprintf(t, "%.2f\t", load)
	}
	for _, name := range r.policies() {
		fmt.Fprintf(t, "\n%s\t", name)
		for i := range r.Points {
			if p := &r.Points[i]; p.Policy == name {
				fmt.Fprintf(t, f.format+"\t", f.value(p))
			}
		}
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func (r *Report) policies() (names []string) {
	for _, p := range r.Points {
		if !slices.Contains(names, p.Policy) {
			names = append(names, p.Policy)
		}
	}
	return names
}

func (r *Report) loads() (loads []float64) {
	for _, p := range r.Points {
		if !slices.Contains(loads, p.Load) {
			loads = append(loads, p.Load)
		}
	}
	return loads
}
