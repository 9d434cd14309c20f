package bench

import (
	"context"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSwitchSuite: the experiment as it is measured, only shorter.
func TestSwitchSuite(t *testing.T) {
	r, err := Switch.Run(context.Background(), Options{
		JunctionRun: buildCommands(t, "junction_run", "junctiond", "netserver"), Quick: true,
		Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	require.Len(t, r.Cases, 2)
	for _, c := range r.Cases {
		require.Empty(t, c.Errors, c.Name)
		require.Len(t, c.metric("blackout_p50_us", Lower).Systems, 1, c.Name)
	}
	requireJudged(t, r, 3)
	for _, kib := range switchFiles(true) {
		for _, series := range []string{"native", "server", hybrid, "direct"} {
			require.Positive(t, r.Cases[0].median(fmt.Sprintf("%dkib_%s", kib, throughput), series), "%d KiB %s", kib, series)
		}
	}
	for _, share := range shares(true) {
		require.Positive(t, r.Cases[1].median(throughput, shareName(share)))
	}
	requirePicture(t, func(path string) error { return Switch.WritePlot(r, path) })
}

func requirePicture(t *testing.T, draw func(path string) error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "picture.png")
	require.NoError(t, draw(path))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	picture, err := png.Decode(f)
	require.NoError(t, err)
	require.Greater(t, picture.Bounds().Dx(), 600)
}

// What could not be measured is left out of the picture.
func TestSwitchPlot(t *testing.T) {
	r := &Report{}
	require.ErrorIs(t, Switch.WritePlot(r, filepath.Join(t.TempDir(), "x.png")), errNothingToPlot)
	c := r.newCase(caseBlocks, "")
	c.add("server", "4kib_"+throughput, Higher, 1000)
	r.newCase(caseShares, "")
	for _, c := range r.Cases {
		c.finish()
	}
	requirePicture(t, func(path string) error { return Switch.WritePlot(r, path) })
}

// A line is found whatever part of it was measured.
func TestGainOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base, gain := rapid.Float64Range(1, 1e6).Draw(t, "base"), rapid.Float64Range(0.1, 10).Draw(t, "gain")
		percents := rapid.SliceOfNDistinct(rapid.IntRange(0, 100), 2, 20, rapid.ID).Draw(t, "percents")
		rates := map[int]float64{}
		for _, p := range percents {
			rates[p] = base * (1 + (gain-1)*float64(p)/100)
		}
		require.InEpsilon(t, gain, gainOver(rates), 1e-6)
	})
}
