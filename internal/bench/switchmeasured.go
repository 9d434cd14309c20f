package bench

import (
	"time"

	"junction/internal/bench/load"
	"junction/internal/monitor/wire"
)

// measured is what the switches of a round did.
type measured struct {
	blackouts, totals, gaps, others []float64
	lost, reordered, rolledBack     uint64
}

// add notes a switch, with its attempts that were rolled back; meanwhile is what
// the load saw during it, otherwise its longest gap before and after.
func (m *measured) add(results []wire.SwitchResult, meanwhile *load.Phase, otherwise time.Duration) {
	for _, r := range results {
		if r.Reason != "" {
			m.rolledBack++
			continue
		}
		m.blackouts = append(m.blackouts, r.BlackoutUS)
		m.totals = append(m.totals, r.TotalUS/1e3)
		m.lost += r.Lost
		m.reordered += r.Reordered
	}
	m.gaps = append(m.gaps, milliseconds(meanwhile.Gap))
	m.others = append(m.others, milliseconds(otherwise))
}

// report adds a round's switches to the case.
func (m *measured) report(c *Case, sys System) {
	if len(m.blackouts) == 0 {
		return
	}
	for _, metric := range []struct {
		name  string
		value float64
	}{
		{"blackout_p50_us", Percentile(m.blackouts, 50)},
		{"blackout_p99_us", Percentile(m.blackouts, 99)},
		{"switch_p50_ms", Percentile(m.totals, 50)},
		{"longest_gap_of_a_switch_p50_ms", Percentile(m.gaps, 50)},
		{"longest_gap_without_p50_ms", Percentile(m.others, 50)},
		{"lost_frames", float64(m.lost)},
		{"reordered_frames", float64(m.reordered)},
		{"rolled_back", float64(m.rolledBack)},
	} {
		c.add(sys.Name(), metric.name, Lower, metric.value)
	}
}
