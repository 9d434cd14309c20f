package bench

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"junction/internal/bench/clients"
)

// A disturbance of whole rounds does not change ratios.
func TestRatiosArePaired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Float64Range(0.01, 100).Draw(t, "ratio")
		rounds := rapid.SliceOfN(rapid.Float64Range(1, 1e6), 1, 9).Draw(t, "native")
		c := (&Report{}).newCase("x", "")
		for _, native := range rounds {
			c.add("native", "m_ns", Lower, native)
			c.add("inproc", "m_ns", Lower, native*want)
		}
		c.add("native", "m_ns", Lower, 1e9) // a round of which the other has no sample
		c.finish()
		m := c.Metrics[0]
		require.InEpsilon(t, want, m.series("inproc").Ratios["native"], 1e-9)
		require.InEpsilon(t, 1/want, m.gain(m.series("inproc"), "native"), 1e-9)
	})
}

func TestTargets(t *testing.T) {
	r := &Report{}
	c := r.newCase("micro", "")
	c.add("native", "m_ns", Lower, 100)
	c.add("inproc", "m_ns", Lower, 150)
	c.target("m_ns", Target{System: "inproc", To: "native", AtMost: 1.5})
	c.target("m_ns", Target{System: "inproc", To: "native", AtMost: 1.4})
	c.target("m_ns", Target{System: "inproc", To: "systrap", AtMost: 0.1})
	c.target("m_ns", Target{System: "absent", To: "native", AtMost: 3})
	c.target("unmeasured_ns", Target{System: "inproc", To: "native", AtMost: 3})
	c.finish()

	var outcomes []Outcome
	for _, target := range c.Metrics[0].Targets {
		outcomes = append(outcomes, target.Outcome)
	}
	require.Equal(t, []Outcome{Met, NotMet, NotMeasured, NotMeasured}, outcomes)
	met, of := r.TargetsMet()
	require.Equal(t, []int{1, 5}, []int{met, of})
	require.False(t, r.Failed(), "a target that is not met is a result")

	limit, ok := c.Metrics[0].targetBy("native")
	require.True(t, ok)
	require.Equal(t, 1.4, limit)
	_, ok = c.Metrics[0].targetBy("runsc")
	require.False(t, ok)

	var b bytes.Buffer
	require.NoError(t, r.WriteTable(&b))
	require.Contains(t, b.String(), "<= 1.5 by native: met, <= 1.4 by native: NOT MET, <= 0.1 by systrap: not measured")
	require.Contains(t, b.String(), "1 of 5 targets met")
	lines := 0
	for l := range strings.Lines(b.String()) {
		if strings.Contains(l, "absent") || strings.Contains(l, "unmeasured_ns") {
			require.Contains(t, l, "not measured")
			lines++
		}
	}
	require.Equal(t, 2, lines, "what has not been measured has lines of its own")
}

// Targets are of ratios or of the value itself, from above or from below.
func TestTargetLimits(t *testing.T) {
	for _, c := range []struct {
		target Target
		better Better
		want   string
	}{
		{Target{To: "native", AtLeast: 0.7}, Higher, ">= 0.7 by native: met"},
		{Target{To: "native", AtLeast: 0.9}, Higher, ">= 0.9 by native: NOT MET"},
		{Target{To: "absent", AtLeast: 0.1}, Higher, ">= 0.1 by absent: not measured"},
		{Target{AtLeast: 80}, Higher, ">= 80: met"},
		{Target{AtLeast: 81}, Higher, ">= 81: NOT MET"},
		{Target{AtMost: 80}, Lower, "<= 80: met"},
		{Target{AtMost: 79}, Lower, "<= 79: NOT MET"},
	} {
		r := &Report{}
		k := r.newCase("x", "")
		k.add("native", "m", c.better, 100)
		k.add("ours", "m", c.better, 80)
		c.target.System = "ours"
		k.target("m", c.target)
		k.finish()
		require.Len(t, k.Metrics, 1)
		require.Equal(t, c.want, k.Metrics[0].targetsOf("ours"))
	}
}

// Every operation is measured under every engine, by counts that take no time.
func TestMicro(t *testing.T) {
	r, err := Micro.Run(context.Background(), Options{
		JunctionRun: buildJunctionRun(t), Quick: true, Only: "micro", Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	c := r.Cases[0]
	require.Empty(t, c.Errors)
	require.Len(t, c.Metrics, len(operations)+len(switches))
	for _, m := range c.Metrics {
		require.Len(t, m.Systems, 3, m.Name)
		for _, s := range m.Systems {
			require.Positive(t, s.Median, "%s %s", m.Name, s.System)
			require.Contains(t, s.Ratios, "native")
		}
		for _, target := range m.Targets {
			require.NotEqual(t, NotMeasured, target.Outcome, "%s: %s", m.Name, target)
		}
	}
	require.Equal(t, "none, inproc", c.Modes["inproc"])
	require.Equal(t, "none, systrap", c.Modes["systrap"])
}

// A program that computes wrongly, or a system that loses lines, is no result.
func TestMicroRefuses(t *testing.T) {
	r, err := Micro.Run(context.Background(), Options{
		JunctionRun: "/bin/echo", Quick: true, Only: "nbody-c", Progress: func(string) {},
	})
	require.NoError(t, err)
	require.Contains(t, r.Cases[0].Errors, "inproc")
	require.NotContains(t, r.Cases[0].Errors, "native")
	require.Equal(t, NotMeasured, r.Cases[0].Metrics[0].Targets[0].Outcome)
}

// All languages compute the same, to the last bit, natively and in an instance.
func TestNbody(t *testing.T) {
	junctionRun := buildJunctionRun(t)
	dir := t.TempDir()
	energies := map[float64][]string{}
	for _, l := range languages {
		argv, err := l.build(t.Context(), dir)
		require.NoError(t, err, l.name)
		argv = append(argv, "5000")
		inproc := append([]string{junctionRun, "--engine", "inproc", "--mode", "none", "--"}, argv...)
		for _, argv := range [][]string{argv, inproc} {
			out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Output()
			require.NoError(t, err, "%q%s", argv, diagnosis(err))
			lines := slices.Collect(strings.Lines(string(out)))
			require.Len(t, lines, 2)
			require.Equal(t, clients.NbodyStart+"\n", lines[0])
			energy, err := clients.ParseNbodyEnd(strings.TrimSpace(lines[1]))
			require.NoError(t, err)
			energies[energy] = append(energies[energy], argv[0]+" "+l.name)
		}
	}
	require.Len(t, energies, 1, "%v", energies)
}
