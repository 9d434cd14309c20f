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
	return nil
}

func (c *Case) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "\n%s: %s\n", c.Name, c.About)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tmetric\tbetter\tsystem\tmedian\tmin\tmax\tby native\tby runsc\t")
	for _, m := range c.Metrics {
		for i, s := range m.Systems {
			name, better := m.Name, string(m.Better)
			if i > 0 {
				name, better = "", ""
			}
			fmt.Fprintf(t, "\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, better, s.System, number(s.Median),
				number(slices.Min(s.Samples)), number(slices.Max(s.Samples)), ratio(s.RatioToNative), ratio(s.RatioToRunsc))
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
