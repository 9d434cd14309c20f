package sim

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cs "junction/coresched"
	"junction/coresched/policies/biff"
	"junction/coresched/policies/fifo"
	"junction/coresched/policies/fifopercpu"
	"junction/coresched/policies/sol"
)

const us = cs.Time(time.Microsecond)

func open(load float64, cores int, s Service) []Instance {
	return []Instance{{Source: Poisson{Gap: s.Mean() / load / float64(cores), Service: s}}}
}

// erlangC is the probability that a request waits in M/M/k.
func erlangC(k int, load float64) float64 {
	a, sum, term := load*float64(k), 0.0, 1.0
	for i := range k {
		sum += term
		term *= a / float64(i+1)
	}
	term /= 1 - load
	return term / (sum + term)
}

// Mean times in the system against queueing theory, for all policies that are
// first in, first out at no cost.
func TestTheory(t *testing.T) {
	const mean = 10 * us
	mmk := func(k int) func(float64) float64 {
		return func(load float64) float64 { return 1 + erlangC(k, load)/(float64(k)*(1-load)) }
	}
	md1 := func(load float64) float64 { return 1 + load/(2*(1-load)) }
	for name, c := range map[string]struct {
		cores  int
		s      Service
		theory func(load float64) float64
	}{
		"M/M/1":  {1, Exp(mean), mmk(1)},
		"M/M/4":  {4, Exp(mean), mmk(4)},
		"M/M/32": {32, Exp(mean), mmk(32)},
		"M/D/1":  {1, Fixed(mean), md1},
	} {
		policies := []cs.Policy{fifo.New(fifo.Options{}), sol.New(), biff.New()}
		if c.cores == 1 {
			policies = append(policies, fifopercpu.New())
		}
		for _, p := range policies {
			t.Run(name+" "+p.Traits().Name, func(t *testing.T) {
				for _, load := range []float64{0.3, 0.7} {
					r, err := Run(Config{
						Policy: p, Cores: c.cores, Cost: Free, Seed: 7, Instances: open(load, c.cores, c.s),
						Warmup: 10_000, Requests: 400_000,
					})
					require.NoError(t, err)
					want := c.theory(load)
					got := r.Short.Mean() / float64(mean)
					require.InEpsilon(t, want, got, 0.02, "load %v", load)
					require.InDelta(t, load, r.Utilisation, 0.01)
					require.Zero(t, r.Switching)
				}
			})
		}
	}
}

// The quantiles of M/M/1 are those of an exponential distribution.
func TestTheoryQuantiles(t *testing.T) {
	const mean, load = 10 * us, 0.5
	r, err := Run(Config{
		Policy: sol.New(), Cores: 1, Cost: Free, Seed: 3, Instances: open(load, 1, Exp(mean)), Warmup: 10_000, Requests: 1_000_000,
	})
	require.NoError(t, err)
	for _, q := range []float64{0.5, 0.9, 0.99} {
		want := -math.Log(1-q) * float64(mean) / (1 - load)
		require.InEpsilon(t, want, float64(r.Short.Quantile(q)), 0.03, "%v", q)
	}
}

func TestHist(t *testing.T) {
	var h Hist
	for i := range cs.Time(100_000) {
		h.Add(i)
	}
	require.Equal(t, 49_999.5, h.Mean())
	for _, q := range []float64{0.01, 0.5, 0.99, 0.999} {
		require.InEpsilon(t, q*100_000, float64(h.Quantile(q)), 1.0/100, "%v", q)
	}
	require.Equal(t, cs.Time(99_999), h.Quantile(1))
	require.Zero(t, (&Hist{}).Quantile(0.5))
	for n := 1; n <= 128; n++ { // by definition: the least that a share of q do not exceed
		h := Hist{}
		for i := range n {
			h.Add(cs.Time(i))
		}
		for percent := 0; percent <= 100; percent++ {
			want := max(0, (percent*n+99)/100-1)
			require.Equal(t, cs.Time(want), h.Quantile(float64(percent)/100), "%d %% of %d", percent, n)
		}
	}
	last := -1
	for x := range cs.Time(100_000) { // buckets are in order, without gaps
		i := bucket(x)
		require.LessOrEqual(t, x, upper(i))
		require.LessOrEqual(t, i-last, 1)
		require.GreaterOrEqual(t, i, last)
		last = i
	}
}
