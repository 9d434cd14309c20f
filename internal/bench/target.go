package bench

import (
	"fmt"
	"slices"
	"strings"
)

// Target is how large the ratio of a system's metric to another system's may be.
type Target struct {
	System string  `json:"system"`
	To     string  `json:"to"`
	AtMost float64 `json:"at_most"`
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

// target adds a target to a metric for which lower is better.
func (c *Case) target(metric string, t Target) {
	t.Outcome = NotMeasured
	m := c.metric(metric, Lower)
	m.Targets = append(m.Targets, &t)
}

// judge compares the target with its system's series, or nil if there is none.
func (t *Target) judge(s *Series) {
	t.Outcome = NotMeasured
	if s == nil {
		return
	}
	if ratio, ok := s.Ratios[t.To]; ok {
		t.Outcome = NotMet
		if ratio <= t.AtMost {
			t.Outcome = Met
		}
	}
}

func (t *Target) String() string {
	return fmt.Sprintf("<= %.4g by %s: %s", t.AtMost, t.To, t.Outcome)
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

// nativeTarget returns the smallest target by native, if the metric has one.
func (m *Metric) nativeTarget() (atMost float64, ok bool) {
	for _, t := range m.Targets {
		if t.To == (Native{}).Name() && (!ok || t.AtMost < atMost) {
			atMost, ok = t.AtMost, true
		}
	}
	return atMost, ok
}
