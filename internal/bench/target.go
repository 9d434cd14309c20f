package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Target is what is wanted of a system's metric: one of AtMost, where lower is
// better, and AtLeast, where higher is.
type Target struct {
	System string `json:"system"`
	// To is the system that the ratio is to; empty: the limit is the median's own.
	To      string  `json:"to,omitempty"`
	AtMost  float64 `json:"at_most,omitempty"`
	AtLeast float64 `json:"at_least,omitempty"`
	// Outcome is one of those below, once the case has been run.
	Outcome Outcome `json:"outcome"`
}

// Outcome is what became of a target.
type Outcome string

// What can become of a target. A target of which a side could not be measured
// is never met.
const (
	Met         Outcome = "met"
	NotMet      Outcome = "NOT MET"
	NotMeasured Outcome = "not measured"
)

// target adds a target to a metric.
func (c *Case) target(metric string, t Target) {
	t.Outcome = NotMeasured
	better := Lower
	if t.AtLeast > 0 {
		better = Higher
	}
	m := c.metric(metric, better)
	m.Targets = append(m.Targets, &t)
}

// judge compares the target with its system's series, or nil if there is none.
func (t *Target) judge(s *Series) {
	t.Outcome = NotMeasured
	if s == nil {
		return
	}
	value, ok := s.Median, true
	if t.To != "" {
		value, ok = s.Ratios[t.To]
	}
	if ok {
		t.Outcome = NotMet
		if t.met(value) {
			t.Outcome = Met
		}
	}
}

func (t *Target) met(value float64) bool {
	if t.AtLeast > 0 {
		return value >= t.AtLeast
	}
	return value <= t.AtMost
}

func (t *Target) String() string {
	limit := fmt.Sprintf("<= %.4g", t.AtMost)
	if t.AtLeast > 0 {
		limit = fmt.Sprintf(">= %.4g", t.AtLeast)
	}
	if t.To != "" {
		limit += " by " + t.To
	}
	return fmt.Sprintf("%s: %s", limit, t.Outcome)
}

// targetsOf says what became of the targets of a system.
func (m *Metric) targetsOf(system string) string {
	var all []string
	for _, t := range m.Targets {
		if t.System == system {
			all = append(all, t.String())
		}
	}
	return strings.Join(all, ", ")
}

// unmeasured lists the systems that have a target and no sample.
func (m *Metric) unmeasured() []string {
	var systems []string
	for _, t := range m.Targets {
		if m.series(t.System) == nil && !slices.Contains(systems, t.System) {
			systems = append(systems, t.System)
		}
	}
	return systems
}

// TargetsMet returns how many of all targets were met.
func (r *Report) TargetsMet() (met, of int) {
	for _, c := range r.Cases {
		for _, m := range c.Metrics {
			of += len(m.Targets)
			for _, t := range m.Targets {
				if t.Outcome == Met {
					met++
				}
			}
		}
	}
	return met, of
}

// targetBy returns the hardest target by another system, if the metric has one.
func (m *Metric) targetBy(base string) (limit float64, ok bool) {
	for _, t := range m.Targets {
		if t.To != base {
			continue
		}
		if l := t.AtMost + t.AtLeast; !ok || m.Better.gain(l) > m.Better.gain(limit) {
			limit, ok = l, true
		}
	}
	return limit, ok
}
