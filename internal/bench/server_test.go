package bench

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// TestRing: every medium carries frames of every size, and back again.
func TestRing(t *testing.T) {
	r, err := Server.Run(context.Background(), Options{Quick: true, Only: "ring", Progress: func(what string) { t.Log(what) }})
	require.NoError(t, err)
	require.False(t, r.Failed(), "%v", r.Cases[0].Errors)
	for _, m := range r.Cases[0].Metrics {
		require.Len(t, m.Systems, len(media()), m.Name)
		for _, s := range m.Systems {
			require.Positive(t, s.Median, "%s %s", m.Name, s.System)
		}
	}
	requireJudged(t, r, len(ringTargets))
}

// requireJudged: so many targets, none of which could not be measured, are in
// the report and its table.
func requireJudged(t *testing.T, r *Report, targets int) {
	t.Helper()
	for _, c := range r.Cases {
		for _, m := range c.Metrics {
			for _, target := range m.Targets {
				require.NotEqual(t, NotMeasured, target.Outcome, "%s: %s", m.Name, target)
			}
		}
	}
	met, of := r.TargetsMet()
	require.Equal(t, targets, of)
	var b bytes.Buffer
	require.NoError(t, r.WriteTable(&b))
	require.Contains(t, b.String(), fmt.Sprintf("%d of %d targets met", met, of))
}

// TestServerMode: cases of the suite with real instances in both modes, natively
// and between two instances, as they are measured, only shorter and under fewer systems.
func TestServerMode(t *testing.T) {
	systems := []string{"native", "junction-afxdp", "server-afxdp"}
	suite := Suite{anyCPU: true, benchmarks: func(o Options) []benchmark {
		all := serverBenchmarks(o)
		for i := range all {
			all[i].systems = slices.DeleteFunc(slices.Clone(all[i].systems), func(s System) bool { return !slices.Contains(systems, s.Name()) })
		}
		return all
	}}
	junctionRun := buildCommands(t, "junction_run", "junctiond", "netserver")
	for name, targets := range map[string]int{"server-redis": len(redisTargets), "between": len(betweenTargets)} {
		t.Run(name, func(t *testing.T) {
			r, err := suite.Run(context.Background(), Options{
				JunctionRun: junctionRun, Quick: true, Only: name, Progress: func(what string) { t.Log(what) },
			})
			require.NoError(t, err)
			require.Len(t, r.Cases, 1)
			require.False(t, r.Failed(), "%v", r.Cases[0].Errors)
			requireJudged(t, r, targets)
			require.Contains(t, r.Cases[0].Modes["server-afxdp"], "server, inproc, uplink afxdp")
		})
	}
}

// TestMediaEnd: closing both ends ends who waits for frames or for room.
func TestMediaEnd(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	for _, sys := range media() {
		t.Run(sys.Name(), func(t *testing.T) {
			near, far, err := sys.(medium).open(l, 64)
			require.NoError(t, err)
			ended := make(chan error, 2)
			go func() { _, err := near.take(); ended <- err }()
			go func() { ended <- send(near, make([]byte, 64), new(atomic.Bool)) }()
			_, err = far.take()
			require.NoError(t, err)
			near.close()
			far.close()
			for range cap(ended) {
				select {
				case err := <-ended:
					require.Error(t, err)
				case <-time.After(30 * time.Second):
					t.Fatal("still waits")
				}
			}
		})
	}
}

// TestServerSuiteWithoutServer: without the programs that it needs, server mode
// is reported as not measured, and the rest is measured.
func TestServerSuiteWithoutServer(t *testing.T) {
	r, err := Server.Run(context.Background(), Options{
		JunctionRun: "/bin/false", Rounds: 1, Quick: true, Only: "memcached", Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	c := r.Cases[0]
	require.Contains(t, c.Errors["server-afxdp"], "junctiond")
	require.NotContains(t, c.Errors, "native")
	require.Positive(t, c.metric("get_c50_requests_per_s", Higher).series("native").Median)
	require.Equal(t, []string{"native", "junction-afxdp"}, c.Bases)
}

// TestFrameCosts: what frames cost is summed over all servers of a round.
func TestFrameCosts(t *testing.T) {
	s := ServerMode{Driver: "tap"}
	r := &runner{c: (&Report{}).newCase("x", ""), systems: []System{Native{}, s}}
	for _, frames := range []uint64{1000, 3000} {
		r.costs = append(r.costs, frameCost{s.Name(), 2 * time.Millisecond, frames})
	}
	r.addCosts()
	r.addCosts() // a round without any
	m := r.c.Metrics[0]
	require.Equal(t, "netserver_cpu_us_per_frame", m.Name)
	require.Equal(t, []float64{1}, m.Systems[0].Samples)
}
