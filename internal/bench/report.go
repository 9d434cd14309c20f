package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Schema counts incompatible changes of Report's JSON form.
const Schema = 1

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
}

// Series is what was measured of one metric under one system.
type Series struct {
	System  string    `json:"system"`
	Samples []float64 `json:"samples"` // one for each round
	Median  float64   `json:"median"`
	// Ratios of the medians: this system's value by the other's; absent if the
	// other has none.
	RatioToNative float64 `json:"ratio_to_native,omitempty"`
	RatioToRunsc  float64 `json:"ratio_to_runsc,omitempty"`
}

// newCase adds a case to the report.
func (r *Report) newCase(name, about string) *Case {
	c := &Case{Name: name, About: about, Modes: map[string]string{}, Errors: map[string]string{}}
	r.Cases = append(r.Cases, c)
	return c
}

// add adds a sample of one round.
func (c *Case) add(system, metric string, better Better, value float64) {
	i := slices.IndexFunc(c.Metrics, func(m *Metric) bool { return m.Name == metric })
	if i < 0 {
		i = len(c.Metrics)
		c.Metrics = append(c.Metrics, &Metric{Name: metric, Better: better})
	}
	m := c.Metrics[i]
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

// finish computes medians and ratios.
func (c *Case) finish() {
	for _, m := range c.Metrics {
		for _, s := range m.Systems {
			s.Median = Median(s.Samples)
		}
		for _, s := range m.Systems {
			s.RatioToNative = s.ratio(m.series(Native{}.Name()))
			s.RatioToRunsc = s.ratio(m.series(Runsc{}.Name()))
		}
	}
}

// ratio returns 0 if there is none.
func (s *Series) ratio(base *Series) float64 {
	if base == nil || base.Median == 0 {
		return 0
	}
	return s.Median / base.Median
}

// gain is how many times better than native the system is: above 1 is better.
func (m *Metric) gain(s *Series) float64 {
	if m.Better == Lower && s.RatioToNative != 0 {
		return 1 / s.RatioToNative
	}
	return s.RatioToNative
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
