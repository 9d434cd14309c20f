package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d CPUs, %.1f GiB, Linux %s\n", m.CPU, m.CPUs, float64(m.MemoryBytes)/(1<<30), m.Kernel)
	fmt.Fprintf(w, "load before %.2f, after %.2f; %s; medians of %d round(s)", m.LoadBefore, m.LoadAfter, r.Pinning, r.Rounds)
	if r.Quick {
		fmt.Fprint(w, "; quick: too short to be quoted")
	}
	fmt.Fprintln(w)
	for _, c := range r.Cases {
		if err := c.writeTable(w); err != nil {
			return err
		}
	}
	if met, of := r.TargetsMet(); of > 0 {
		fmt.Fprintf(w, "\n%d of %d targets met\n", met, of)
	}
	return nil
}

func (c *Case) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "\n%s: %s\n", c.Name, c.About)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{"", "metric", "better", "system", "median", "min", "max"}
	for _, base := range c.Bases {
		head = append(head, "by "+base)
	}
	if c.hasTargets() {
		head = append(head, "target")
	}
	fmt.Fprintln(t, strings.Join(head, "\t")+"\t")
	for _, m := range c.Metrics {
		for _, row := range c.rows(m) {
			fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, system := range slices.Sorted(maps.Keys(c.Modes)) {
		fmt.Fprintf(w, "  %s: %s\n", system, c.Modes[system])
	}
	for _, system := range slices.Sorted(maps.Keys(c.Errors)) {
		fmt.Fprintf(w, "  NOT MEASURED %s: %s\n", system, c.Errors[system])
	}
	return nil
}

func (c *Case) hasTargets() bool {
	return slices.ContainsFunc(c.Metrics, func(m *Metric) bool { return len(m.Targets) > 0 })
}

// rows returns a metric's lines of the table, with the name in the first.
func (c *Case) rows(m *Metric) [][]string {
	var rows [][]string
	for _, s := range m.Systems {
		row := []string{"", "", "", s.System, number(s.Median), number(slices.Min(s.Samples)), number(slices.Max(s.Samples))}
		for _, base := range c.Bases {
			row = append(row, ratio(s.Ratios[base]))
		}
		rows = append(rows, append(row, m.targetsOf(s.System)))
	}
	for _, system := range m.unmeasured() {
		row := []string{"", "", "", system, "-", "-", "-"}
		for range c.Bases {
			row = append(row, "-")
		}
		rows = append(rows, append(row, m.targetsOf(system)))
	}
	if len(rows) > 0 {
		rows[0][1], rows[0][2] = m.Name, string(m.Better)
	}
	return rows
}

// number prints a value with three digits or more, in groups of three.
func number(f float64) string {
	switch {
	case f >= 1000:
		return grouped(strconv.FormatFloat(f, 'f', 0, 64))
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

func grouped(digits string) string {
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

func ratio(f float64) string {
	switch {
	case f == 0:
		return "-"
	case f < 0.1:
		return strconv.FormatFloat(f, 'f', 4, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}
