package bench

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/bench/actors"
)

// TestSchedSuite: every case as it is measured, only shorter.
func TestSchedSuite(t *testing.T) {
	needScheduler(t)
	junctionRun := buildCommands(t, "junction_run", "junctiond", "netserver", "junction_policy", "junction_bench")
	targets := map[string]int{caseShared: len(sharedTargets), caseReplace: 2 * len(replaceTargets)}
	for _, name := range Sched.Names() {
		t.Run(name, func(t *testing.T) {
			r, err := Sched.Run(context.Background(), Options{
				JunctionRun: junctionRun, Quick: true, Only: name, Progress: func(what string) { t.Log(what) },
			})
			require.NoError(t, err)
			require.Len(t, r.Cases, 1)
			c := r.Cases[0]
			require.Empty(t, c.Errors)
			require.NotEmpty(t, c.Metrics)
			if targets[name] > 0 {
				requireJudged(t, r, targets[name])
			}
			if name == caseReplace {
				for _, s := range c.metric(lostMetric, Lower).Systems {
					require.Zero(t, s.Median, "requests lost by %s", s.System)
				}
			}
		})
	}
}

// TestSchedWithoutPrograms: what is missing is reported, and the rest is measured.
func TestSchedWithoutPrograms(t *testing.T) {
	r, err := Sched.Run(context.Background(), Options{JunctionRun: "/bin/false", Quick: true, Only: caseMessages, Progress: func(string) {}})
	require.NoError(t, err)
	c := r.Cases[0]
	require.Contains(t, c.Errors["sleeping"], "junction_policy")
	require.Positive(t, c.median("delivery_p50_us", "ghOSt, local agent"))
}

// TestHandedOver: a core that was left counts until the other one has it, if that
// one wanted it.
func TestHandedOver(t *testing.T) {
	const rests = 100
	var b actors.Board
	one, other := &b.Actors[0], &b.Actors[1]
	one.Runs.Add(0, 0)
	other.Runs.Add(1, 0)
	other.Leaves.Add(200, 0) // and wants it again at 300
	one.Runs.Add(210, 0)     // of which nobody knows whether it waited
	one.Leaves.Add(500, 0)
	other.Runs.Add(530, 0) // 30
	one.Runs.Add(560, 0)
	one.Leaves.Add(580, 0) // too soon: the other one does not want it
	other.Leaves.Add(570, 0)
	other.Runs.Add(900, 0)
	require.Equal(t, []time.Duration{30}, handedOver(&b, rests))
}

// TestObeyed: a decision counts until whom it is for has run, or until the next.
func TestObeyed(t *testing.T) {
	var b actors.Board
	b.Actors[0].Runs.Add(0, 0)
	b.Actors[1].Runs.Add(0, 0)
	b.Decided.Add(100, 1)
	b.Actors[0].Runs.Add(105, 0) // whom it is not for
	b.Actors[1].Runs.Add(120, 0)
	b.Decided.Add(200, 0)
	b.Decided.Add(300, 1) // 0 has not run
	b.Actors[1].Runs.Add(310, 0)
	b.Decided.Add(400, 7) // of nobody
	require.Equal(t, []time.Duration{20, 100, 10}, obeyed(&b))
}

// What is forgotten is not taken for what comes later.
func TestForgottenMoments(t *testing.T) {
	var b actors.Board
	b.Decided.Add(1, 0)
	for at := range 10_000 {
		b.Actors[0].Runs.Add(time.Duration(at), 0)
	}
	require.Empty(t, obeyed(&b))
}

// BenchmarkCommit shows that a group of transactions allocates nothing.
func BenchmarkCommit(b *testing.B) {
	for _, sys := range groups() {
		g, ok := sys.(group)
		if !ok {
			continue
		}
		b.Run(g.Name(), func(b *testing.B) {
			c, err := newCommits(g.size, g.sync)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				c.turn()
			}
			require.NoError(b, c.check())
		})
	}
}
