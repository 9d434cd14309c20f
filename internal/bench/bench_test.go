package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// samples are measured values: finite and positive.
var samples = rapid.SliceOfN(rapid.Float64Range(0, 1e12), 1, 50)

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, Median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, Median([]float64{4, 1, 2, 3}))
	require.True(t, math.IsNaN(Median(nil)))
	rapid.Check(t, func(t *rapid.T) {
		s := samples.Draw(t, "samples")
		before := slices.Clone(s)
		m := Median(s)
		require.Equal(t, before, s, "the caller's samples stay in order")
		below, above := 0, 0
		for _, v := range s {
			if v < m {
				below++
			}
			if v > m {
				above++
			}
		}
		require.LessOrEqual(t, 2*below, len(s))
		require.LessOrEqual(t, 2*above, len(s))
	})
}

func TestPercentile(t *testing.T) {
	require.True(t, math.IsNaN(Percentile(nil, 50)))
	rapid.Check(t, func(t *rapid.T) {
		s, p := samples.Draw(t, "samples"), rapid.Float64Range(0, 100).Draw(t, "p")
		v := Percentile(s, p)
		require.Contains(t, s, v)
		atMost := 0
		for _, w := range s {
			if w <= v {
				atMost++
			}
		}
		require.GreaterOrEqual(t, float64(atMost)/float64(len(s))+1e-9, p/100)
		require.Equal(t, slices.Max(s), Percentile(s, 100))
		require.Equal(t, slices.Min(s), Percentile(s, 0))
	})
}

// filled returns a report with all that can be in one.
func filled() *Report {
	r := &Report{Schema: Schema, Date: "2000-01-01", Rounds: 2, Machine: Machine{CPU: "A CPU", CPUs: 2}}
	c := r.newCase("redis", "about redis")
	for _, s := range []struct {
		system string
		rate   float64
	}{{"native", 1000}, {"runsc", 100}, {"junction-afxdp", 400}} {
		for _, v := range []float64{s.rate / 2, s.rate * 1.5} {
			c.add(s.system, "requests_per_s", Higher, v)
			c.add(s.system, "cpu_us", Lower, 1e6/v)
			c.add(s.system, "lost", Lower, 0)
		}
		c.Modes[s.system] = "mode of " + s.system
	}
	c.Errors["junction-tap"] = "did not start"
	c.finish()
	return r
}

func TestReportRatios(t *testing.T) {
	r := filled()
	require.True(t, r.Failed())
	rate, cpu := r.Cases[0].Metrics[0], r.Cases[0].Metrics[1]
	ours := rate.series("junction-afxdp")
	require.Equal(t, 400.0, ours.Median)
	require.InDelta(t, 0.4, ours.Ratios["native"], 1e-9)
	require.InDelta(t, 4, ours.Ratios["runsc"], 1e-9)
	require.InDelta(t, 0.4, rate.gain(ours, "native"), 1e-9)
	require.InDelta(t, 0.4, cpu.gain(cpu.series("junction-afxdp"), "native"), 1e-9, "more CPU time is worse")
	require.Nil(t, rate.series("junction-tap"))
	require.Empty(t, r.Cases[0].Metrics[2].series("runsc").Ratios, "nothing has a ratio to 0")
}

func TestReportJSON(t *testing.T) {
	var b bytes.Buffer
	r := filled()
	require.NoError(t, r.WriteJSON(&b))
	var back Report
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, r, &back)
	require.Contains(t, b.String(), `"schema": 3`)
	r.Date = ""
	b.Reset()
	require.NoError(t, r.WriteJSON(&b))
	require.NotContains(t, b.String(), "date", "no date is made up")
}

func TestReportTable(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, filled().WriteTable(&b))
	line := ""
	for l := range strings.Lines(b.String()) {
		if strings.Contains(l, "junction-afxdp") {
			line = l
			break
		}
	}
	require.Equal(t, []string{"junction-afxdp", "400", "200", "600", "0.40", "4.00"}, strings.Fields(line))
	require.Contains(t, b.String(), "NOT MEASURED junction-tap: did not start")
	require.Contains(t, b.String(), "runsc: mode of runsc")
}

func TestNumber(t *testing.T) {
	for f, want := range map[float64]string{0: "0.00", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234: "1,234", 1234567: "1,234,567", 999999.6: "1,000,000"} {
		require.Equal(t, want, number(f))
	}
}

func TestReportPlot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ratios.png")
	require.NoError(t, filled().WritePlot(path))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	picture, err := png.Decode(f)
	require.NoError(t, err)
	require.Greater(t, picture.Bounds().Dx(), 600)

	same := &Report{} // all dots at one place
	c := same.newCase("x", "")
	c.add("native", "m", Higher, 5)
	c.add("runsc", "m", Higher, 5)
	c.add("junction", "m", Higher, 0) // has no logarithm
	c.finish()
	require.NoError(t, same.WritePlot(path))
	require.ErrorIs(t, new(Report).WritePlot(path), errNothingToPlot)
}

func TestJunctionMode(t *testing.T) {
	const stats = `{"schema":1,"mode":"direct","engine":"systrap","device":{"driver":"afxdp","attach":"native","copy":"copy","need_wakeup":true,"queues":2,"warnings":["no frags"]}}`
	mode, err := Junction{Spin: Spin}.mode([]byte("redis says hello\n" + stats + "\n"))
	require.NoError(t, err)
	require.Equal(t, "direct, systrap, afxdp, native, copy, 2 queue(s), need-wakeup, no frags, spins 50µs", mode)
	mode, err = Junction{}.mode([]byte(`{"schema":1,"mode":"none","engine":"systrap"}`))
	require.NoError(t, err)
	require.Equal(t, "none, systrap", mode)
	for _, bad := range []string{"", "killed", "{}", "null", stats + "\nmore", `{"schema":2,"mode":"direct"}`} {
		_, err := Junction{}.mode([]byte(bad))
		require.Error(t, err, "%q", bad)
	}
}

func TestMachine(t *testing.T) {
	m, err := describeMachine()
	require.NoError(t, err)
	require.NotEmpty(t, m.CPU)
	require.NotEmpty(t, m.Kernel)
	require.Positive(t, m.CPUs)
	require.Greater(t, m.MemoryBytes, uint64(1<<26))
}

// A report is whatever happens complete, and nothing is left in the lab: here
// one program ends before it serves.
func TestFailingSystem(t *testing.T) {
	r, err := Network.Run(context.Background(), Options{
		JunctionRun: "/bin/false", Rounds: 1, Quick: true, Only: "udp", Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	require.True(t, r.Failed())
	c := r.Cases[0]
	require.Contains(t, c.Errors["junction-afxdp"], "ended before it served")
	require.NotContains(t, c.Errors, "native")
	require.Positive(t, c.Metrics[0].series("native").Median)
	require.Positive(t, c.Metrics[0].series("native-spin").Median)
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Network.Run(ctx, Options{
		JunctionRun: "/bin/false", Rounds: 2, Quick: true, Only: "bulk",
		Progress: func(string) { cancel() },
	})
	require.ErrorIs(t, err, context.Canceled)
}
