package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/coresched/policies/edf"
	"junction/coresched/policies/fifo"
)

func TestReadArrivals(t *testing.T) {
	all, err := ReadArrivals(strings.NewReader("# a trace\n0 10\n\n1.5 20.25 long\n2 1 short 30\n"))
	require.NoError(t, err)
	require.Equal(t, []Arrival{
		{0, Job{Service: 10 * us}},
		{1500, Job{Service: 20250, Long: true}},
		{2 * us, Job{Service: us, Within: 30 * us}},
	}, all)
	for _, bad := range []string{"", "1", "1 x", "-1 2", "2 2\n1 1", "1 2 middle", "1 2 long 3 4", "NaN 1", "1e30 1", "1 2 3"} {
		_, err := ReadArrivals(strings.NewReader(bad))
		require.ErrorIs(t, err, ErrFile, "%q", bad)
	}
	_, err = ReadArrivals(strings.NewReader("0 1\n" + strings.Repeat("1", 1<<17)))
	require.ErrorIs(t, err, ErrFile)
	require.ErrorContains(t, err, "line 2 is longer")
}

func FuzzReadArrivals(f *testing.F) {
	f.Add("0 10\n1.5 20.25 long 9 # x\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ReadArrivals(strings.NewReader(text))
		if err != nil {
			return
		}
		last := all[0].At
		for _, a := range all {
			require.GreaterOrEqual(t, a.At, last)
			require.Positive(t, a.Job.Service)
			require.GreaterOrEqual(t, a.Job.Within, 0*us)
			last = a.At
		}
	})
}

// A file is replayed as it is, or stretched to a load.
func TestReplay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace")
	require.NoError(t, os.WriteFile(file, []byte("0 10\n0 10 long\n100 10\n"), 0o600))
	all, offered, err := Workload(file, 0, 1, 1, 0)
	require.NoError(t, err)
	require.InDelta(t, 0.3, offered, 1e-9)
	r, err := Run(Config{Policy: fifo.New(fifo.Options{}), Cores: 1, Cost: Free, Instances: all})
	require.NoError(t, err)
	require.Equal(t, 3, r.Completed)
	require.Equal(t, 110*us, r.Elapsed)
	require.Equal(t, 20*us, r.Long.Quantile(1))
	all, offered, err = Workload(file, 0.6, 1, 1, 0)
	require.NoError(t, err)
	require.Equal(t, 0.6, offered)
	r, err = Run(Config{Policy: edf.New(), Cores: 1, Cost: Free, Instances: all})
	require.NoError(t, err)
	require.Equal(t, 60*us, r.Elapsed)
	_, _, err = Workload("no such", 0.5, 1, 1, 0)
	require.ErrorIs(t, err, ErrWorkload)
}
