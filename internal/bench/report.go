package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Schema counts incompatible changes of Report's JSON form.
const Schema = 3

// Report is the outcome of a run. Units are in the names of metrics.
type Report struct {
	Schema  int     `json:"schema"`
	Date    string  `json:"date,omitempty"` // as the caller gave it
	Quick   bool    `json:"quick"`
	Rounds  int     `json:"rounds"`
	Pinning string  `json:"pinning"`
	Machine Machine `json:"machine"`
	Cases   []*Case `json:"cases"`
}

// Case is the outcome of one benchmark.
type Case struct {
	Name    string            `json:"name"`
	About   string            `json:"about"`
	Modes   map[string]string `json:"modes"`            // by system: what was really in use
	Errors  map[string]string `json:"errors,omitempty"` // by system: why it was not measured
	Metrics []*Metric         `json:"metrics"`
	// Bases are the systems that tables compare the others with, best known first.
	Bases []string `json:"bases"`
}

// Better says which values of a metric are better.
type Better string

// The two directions.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// Metric is one quantity under all systems.
type Metric struct {
	Name    string    `json:"name"` // ends with the unit
	Better  Better    `json:"better"`
	Systems []*Series `json:"systems"`
	Targets []*Target `json:"targets,omitempty"`
}

// Series is what was measured of one metric under one system.
type Series struct {
	System  string    `json:"system"`
	Samples []float64 `json:"samples"` // one for each round
	Median  float64   `json:"median"`
	// Ratios by system: the median, over the rounds, of this system's value by
	// the other's. Systems that have no value above 0 are absent.
	Ratios map[string]float64 `json:"ratios"`
}

// newCase adds a case to the report.
func (r *Report) newCase(name, about string) *Case {
	c := &Case{Name: name, About: about, Bases: []string{Native{}.Name(), Runsc{}.Name()}, Modes: map[string]string{}, Errors: map[string]string{}}
	r.Cases = append(r.Cases, c)
	return c
}

// metric returns the metric of that name, which is added if the case has none.
func (c *Case) metric(name string, better Better) *Metric {
	i := slices.IndexFunc(c.Metrics, func(m *Metric) bool { return m.Name == name })
	if i < 0 {
		i = len(c.Metrics)
		c.Metrics = append(c.Metrics, &Metric{Name: name, Better: better})
	}
	return c.Metrics[i]
}

// add adds a sample of one round. A system has one sample of a metric in each
// round until it fails, so that samples of one index are of one round.
func (c *Case) add(system, metric string, better Better, value float64) {
	m := c.metric(metric, better)
	s := m.series(system)
	if s == nil {
		s = &Series{System: system}
		m.Systems = append(m.Systems, s)
	}
	s.Samples = append(s.Samples, value)
}

// series returns the series of a system, or nil.
func (m *Metric) series(system string) *Series {
	for _, s := range m.Systems {
		if s.System == system {
			return s
		}
	}
	return nil
}

// finish computes medians and ratios, and what became of targets.
func (c *Case) finish() {
	for _, m := range c.Metrics {
		for _, s := range m.Systems {
			s.Median = Median(s.Samples)
			s.Ratios = map[string]float64{}
			for _, base := range m.Systems {
				if ratio, ok := s.ratioTo(base); ok {
					s.Ratios[base.System] = ratio
				}
			}
		}
		for _, t := range m.Targets {
			t.judge(m.series(t.System))
		}
	}
}

// ratioTo returns the median of the ratios of the rounds that both have been in.
// A round is compared with itself: what disturbed it disturbed both.
func (s *Series) ratioTo(base *Series) (ratio float64, ok bool) {
	var ratios []float64
	for i := range min(len(s.Samples), len(base.Samples)) {
		if base.Samples[i] > 0 {
			ratios = append(ratios, s.Samples[i]/base.Samples[i])
		}
	}
	return Median(ratios), len(ratios) > 0
}

// gain is how many times better than another the system is: above 1 is better,
// and 0 if that cannot be said.
func (m *Metric) gain(s *Series, base string) float64 { return m.Better.gain(s.Ratios[base]) }

// gain returns what a ratio to another system means where less may be better.
func (b Better) gain(ratio float64) float64 {
	if b == Lower && ratio != 0 {
		return 1 / ratio
	}
	return ratio
}

// Failed says whether any system of any case could not be measured.
func (r *Report) Failed() bool {
	return slices.ContainsFunc(r.Cases, func(c *Case) bool { return len(c.Errors) > 0 })
}

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
