package schedsim

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/coresched/policies"
)

func TestSweep(t *testing.T) {
	o := Options{Loads: []float64{0.3, 0.6}, Cores: 4, Requests: 20_000, Seed: 5}
	r, err := Sweep(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, r.Points, 2*len(policies.Names()))
	again, err := Sweep(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, r, again)
	byName := map[string]Point{}
	for _, p := range r.Points {
		require.InDelta(t, p.Load, p.Utilisation, 0.15, p.Policy)
		byName[p.Policy] = p
	}
	require.Less(t, 20*byName["shinjuku"].ShortP99, byName["fifo-central"].ShortP99)

	dir := t.TempDir()
	require.NoError(t, r.WriteJSON(filepath.Join(dir, "r.json")))
	b, err := os.ReadFile(filepath.Join(dir, "r.json"))
	require.NoError(t, err)
	var read Report
	require.NoError(t, json.Unmarshal(b, &read))
	require.Equal(t, *r, read)

	require.NoError(t, r.WritePlot(filepath.Join(dir, "r.png")))
	f, err := os.Open(filepath.Join(dir, "r.png"))
	require.NoError(t, err)
	defer f.Close()
	img, err := png.Decode(f)
	require.NoError(t, err)
	require.Greater(t, img.Bounds().Dx(), 500)

	var out bytes.Buffer
	require.NoError(t, r.WriteTables(&out))
	for _, name := range policies.Names() {
		require.Equal(t, len(figures), bytes.Count(out.Bytes(), []byte(name+" ")), name)
	}
}

func TestSweepErrors(t *testing.T) {
	for _, o := range []Options{{Policies: []string{"no"}}, {Workload: "no"}, {Cost: "no"}, {Cores: -1}, {Loads: []float64{-1}}} {
		o.Requests = 100
		_, err := Sweep(t.Context(), o)
		require.Error(t, err, "%+v", o)
	}
	require.ErrorIs(t, (&Report{}).WritePlot(filepath.Join(t.TempDir(), "x.png")), errNoPoints)
}
