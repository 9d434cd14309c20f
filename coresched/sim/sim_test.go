package sim_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cs "junction/coresched"
	"junction/coresched/policies"
	"junction/coresched/policies/cfs"
	"junction/coresched/sim"
)

const (
	us = cs.Time(time.Microsecond)
	ms = cs.Time(time.Millisecond)
)

func policy(t *testing.T, name string) cs.Policy {
	p, err := policies.New(name, nil)
	require.NoError(t, err)
	return p
}

func workload(t *testing.T, name string, load float64, cores, n, kthreads int) []sim.Instance {
	all, _, err := sim.Workload(name, load, cores, n, kthreads)
	require.NoError(t, err)
	return all
}

// The same seed gives the same trace, byte for byte; another seed another.
func TestDeterministic(t *testing.T) {
	for _, name := range policies.Names() {
		for _, cost := range []sim.Cost{sim.Ghost, sim.Stock} {
			t.Run(name+" "+cost.Name, func(t *testing.T) {
				run := func(seed uint64) []byte {
					var out bytes.Buffer
					r, err := sim.Run(sim.Config{
						Policy: policy(t, name), Cores: 3, Cost: cost, Seed: seed,
						Instances: workload(t, "rocksdb", 0.5, 3, 5, 2), Requests: 2000, Trace: &out,
					})
					require.NoError(t, err)
					require.Equal(t, 2000, r.Completed)
					return out.Bytes()
				}
				a := run(1)
				require.True(t, bytes.Equal(a, run(1)))
				require.False(t, bytes.Equal(a, run(2)))
			})
		}
	}
}

// ghOSt's figure 6: slices keep the tail of short requests short among long
// ones.
func TestShinjukuTail(t *testing.T) {
	for _, cores := range []int{1, 2, 4} {
		p99 := func(name string) cs.Time {
			r, err := sim.Run(sim.Config{
				Policy: policy(t, name), Cores: cores, Cost: sim.Ghost, Seed: 6,
				Instances: workload(t, "rocksdb", 0.5, cores, 1, 0), Warmup: 10_000, Requests: 300_000,
			})
			require.NoError(t, err)
			return r.Short.Quantile(0.99)
		}
		shinjuku, perCPU, central := p99("shinjuku"), p99("fifo-percpu"), p99("fifo-central")
		t.Logf("%d cores: p99 shinjuku %v, fifo-percpu %v, fifo-central %v", cores, shinjuku, perCPU, central)
		require.Less(t, 20*shinjuku, perCPU)
		require.Less(t, 20*shinjuku, central)
	}
}

// A program that says which of its requests are long helps those that are short,
// under a policy that knows classes, and no other; one that gives deadlines helps
// edf. The long ones pay, and are still served.
func TestHinted(t *testing.T) {
	run := func(name string, hinted bool) sim.Result {
		all := workload(t, "rocksdb", 0.8, 2, 1, 0)
		all[0].Hinted = hinted
		r, err := sim.Run(sim.Config{Policy: policy(t, name), Cores: 2, Cost: sim.Ghost, Seed: 6, Instances: all, Warmup: 10_000, Requests: 200_000})
		require.NoError(t, err)
		require.Equal(t, 200_000, r.Completed)
		return r
	}
	p99 := func(name string, hinted bool) cs.Time { r := run(name, hinted); return r.Short.Quantile(0.99) }
	with, without := p99("shinjuku", true), p99("shinjuku", false)
	t.Logf("shinjuku, p99 of short requests at a load of 0.8: %v with hints, %v without", with, without)
	require.Less(t, 2*with, without)
	require.Equal(t, p99("fifo-central", true), p99("fifo-central", false))

	deadlines := func(hinted bool) sim.Result {
		all := []sim.Instance{}
		for i := range 5 {
			all = append(all, sim.Instance{Hinted: hinted, Source: sim.Periodic{Period: ms * cs.Time(1+i), Service: ms * cs.Time(1+i) / 6}})
		}
		r, err := sim.Run(sim.Config{Policy: policy(t, "edf"), Cores: 1, Cost: sim.Ghost, Seed: 1, Instances: all, Horizon: 1000 * ms})
		require.NoError(t, err)
		return r
	}
	require.Zero(t, deadlines(true).Missed)
	require.Equal(t, deadlines(false).Completed, deadlines(true).Completed)
}

// Sets of periodic tasks that one core can serve: no deadline is missed under
// edf at no cost up to a load of 1, nor at ghOSt's costs with what they take
// left free. The same sets at a load above 1 miss some.
func TestEDF(t *testing.T) {
	run := func(seed uint64, load float64, cost sim.Cost) sim.Result {
		rng := rand.New(rand.NewPCG(seed, 5))
		n := 2 + rng.IntN(6)
		var all []sim.Instance
		for i := range n {
			part := load / float64(n)
			period := ms + cs.Time(rng.Int64N(int64(9*ms)))
			if i == n-1 {
				part = load - part*float64(n-1)
			}
			all = append(all, sim.Instance{Source: sim.Periodic{Period: period, Service: cs.Time(part * float64(period))}})
		}
		r, err := sim.Run(sim.Config{Policy: policy(t, "edf"), Cores: 1, Cost: cost, Seed: seed, Instances: all, Horizon: 2000 * ms})
		require.NoError(t, err)
		require.Greater(t, r.Completed, 200)
		return r
	}
	missed := 0
	for seed := range uint64(40) {
		require.Zero(t, run(seed, 1, sim.Free).Missed, "seed %d", seed)
		require.Zero(t, run(seed, 0.95, sim.Ghost).Missed, "seed %d", seed)
		missed += run(seed, 1.2, sim.Free).Missed
	}
	require.Positive(t, missed)
}

// Tasks that compute for ever get time by weight, on one core and on several:
// each its share within 1 %, be it ever so small. What is off comes from
// switches, which are dearer for short slices, and from the last slice.
func TestCFSShares(t *testing.T) {
	for _, c := range []struct {
		cores int
		nice  []int8
	}{
		{1, []int8{0, 0}}, {1, []int8{-5, 0, 5, 10}}, {1, []int8{-20, 19, 0}}, {2, []int8{0, 0, 0}}, {4, []int8{0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5}},
	} {
		for _, cost := range []sim.Cost{sim.Free, sim.Ghost} {
			testShares(t, c.cores, c.nice, cost)
		}
	}
}

func testShares(t *testing.T, cores int, nices []int8, cost sim.Cost) {
	var all []sim.Instance
	sum := 0.0
	for _, nice := range nices {
		all = append(all, sim.Instance{Hints: cs.Hints{Nice: nice}, Kthreads: 1})
		sum += cfs.Weight(nice)
	}
	r, err := sim.Run(sim.Config{Policy: policy(t, "cfs"), Cores: cores, Cost: cost, Seed: 1, Instances: all, Horizon: 600_000 * ms})
	require.NoError(t, err)
	total := cs.Time(0)
	for _, d := range r.Runtime {
		total += d
	}
	for i, d := range r.Runtime {
		require.InEpsilon(t, cfs.Weight(nices[i])/sum*float64(total), float64(d), 0.01, "%v on %d at %s costs: task %d", nices, cores, cost.Name, i)
	}
}

// Under ias best effort leaves the latency-critical instances alone, and has
// what they do not use.
func TestIAS(t *testing.T) {
	run := func(name string, batch bool) sim.Result {
		all := workload(t, "exp", 0.4, 4, 4, 2)
		for i := range all {
			all[i].Hints = cs.Hints{Class: cs.LatencyCritical, Guaranteed: 1}
		}
		if batch {
			all = append(all, sim.Instance{Kthreads: 4, Hints: cs.Hints{Class: cs.BestEffort}})
		}
		r, err := sim.Run(sim.Config{Policy: policy(t, name), Cores: 4, Cost: sim.Ghost, Seed: 9, Instances: all, Warmup: 1000, Requests: 100_000, Horizon: 60_000 * ms})
		require.NoError(t, err)
		return r
	}
	alone, beside := run("ias", false), run("ias", true)
	t.Logf("p99 alone %v, beside best effort %v, of which utilisation %.2f and %.2f",
		alone.Short.Quantile(0.99), beside.Short.Quantile(0.99), alone.Utilisation, beside.Utilisation)
	require.Less(t, float64(beside.Short.Quantile(0.99)), 1.5*float64(alone.Short.Quantile(0.99)))
	left := 1 - alone.Utilisation - alone.Switching
	require.Greater(t, float64(beside.Runtime[4]), 0.8*left*4*float64(beside.Elapsed))
	classless := run("cfs", true)
	require.Greater(t, classless.Short.Quantile(0.99), 10*beside.Short.Quantile(0.99), "without classes they are in each other's way")
}

// Bursts: one instance may use cores that the others do not, and gives them
// back.
func TestIASBurst(t *testing.T) {
	all := workload(t, "exp", 0.5, 4, 1, 4)
	all[0].Hints = cs.Hints{Guaranteed: 1}
	all = append(all, sim.Instance{Kthreads: 4, Hints: cs.Hints{Class: cs.BestEffort}})
	r, err := sim.Run(sim.Config{Policy: policy(t, "ias"), Cores: 4, Cost: sim.Ghost, Seed: 9, Instances: all, Requests: 50_000})
	require.NoError(t, err)
	require.Equal(t, 50_000, r.Completed, "twice what one core can do")
	require.Less(t, r.Short.Quantile(0.99), 200*us)
	require.Greater(t, float64(r.Runtime[1]), 0.7*2*float64(r.Elapsed))
}

// The sizes that the machine at hand does not have.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("short: 512 cores take a while")
	}
	for _, name := range policies.Names() {
		r, err := sim.Run(sim.Config{
			Policy: policy(t, name), Cores: 512, Cost: sim.Free, Seed: 4,
			Instances: workload(t, "rocksdb", 0.6, 512, 4096, 2), Requests: 40_000,
		})
		require.NoError(t, err, name)
		require.Equal(t, 40_000, r.Completed, name)
	}
}

// A queue of messages that overflows all the time slows a policy down; no
// request is lost.
func TestOverflowLosesNothing(t *testing.T) {
	for _, name := range policies.Names() {
		for _, kthreads := range []int{0, 3} {
			arrivals, want := []sim.Arrival{}, 3000
			for i := range want {
				arrivals = append(arrivals, sim.Arrival{At: cs.Time(i/50) * 200 * us, Job: sim.Job{Service: 5 * us}})
			}
			r, err := sim.Run(sim.Config{
				Policy: policy(t, name), Cores: 4, Cost: sim.Stock, Seed: 1, QueueLen: 8,
				Instances: []sim.Instance{{Source: &sim.Recorded{Arrivals: arrivals}, Kthreads: kthreads}},
			})
			require.NoError(t, err)
			require.Equal(t, want, r.Completed, "%s, %d kthreads", name, kthreads)
			if kthreads == 0 {
				require.NotZero(t, r.Counts.Lost, name)
				require.NotZero(t, r.Counts.Rescans, name)
			}
		}
	}
}

func TestConfigErrors(t *testing.T) {
	good := sim.Config{Policy: policy(t, "sol"), Cores: 1, Instances: workload(t, "exp", 0.5, 1, 1, 0), Requests: 1}
	_, err := sim.Run(good)
	require.NoError(t, err)
	for i, spoil := range []func(*sim.Config){
		func(c *sim.Config) { c.Policy = nil },
		func(c *sim.Config) { c.Cores = 0 },
		func(c *sim.Config) { c.Cores = sim.MaxCores + 1 },
		func(c *sim.Config) { c.Instances = nil },
		func(c *sim.Config) { c.Instances = make([]sim.Instance, 1) },
		func(c *sim.Config) { c.Requests = -1 },
		func(c *sim.Config) { c.Instances = []sim.Instance{{Kthreads: cs.MaxTasks + 1}} },
		func(c *sim.Config) { c.Instances = []sim.Instance{{Kthreads: cs.MaxTasks}, {Kthreads: math.MaxInt}} },
	} {
		c := good
		spoil(&c)
		_, err := sim.Run(c)
		require.ErrorIs(t, err, sim.ErrConfig, "%d", i)
	}
}

// Each request that arrives and ends is in the trace once.
func TestTrace(t *testing.T) {
	var out bytes.Buffer
	_, err := sim.Run(sim.Config{
		Policy: policy(t, "shinjuku"), Cores: 2, Cost: sim.Ghost, Seed: 1,
		Instances: workload(t, "exp", 0.7, 2, 1, 0), Requests: 500, Trace: &out,
	})
	require.NoError(t, err)
	arrived, done := bytes.Count(out.Bytes(), []byte(" ARRIVE ")), bytes.Count(out.Bytes(), []byte(" DONE "))
	require.Equal(t, 500, done)
	require.GreaterOrEqual(t, arrived, done)
}

func BenchmarkSim(b *testing.B) {
	for _, name := range policies.Names() {
		for _, cores := range []int{4, 64, 512} {
			b.Run(fmt.Sprintf("%s/%d", name, cores), func(b *testing.B) {
				p, err := policies.New(name, nil)
				require.NoError(b, err)
				all, _, err := sim.Workload("exp", 0.6, cores, 1, 0)
				require.NoError(b, err)
				_, err = sim.Run(sim.Config{Policy: p, Cores: cores, Cost: sim.Free, Instances: all, Requests: b.N})
				require.NoError(b, err)
			})
		}
	}
}

// An agent that is in the midst of a round when the run ends has worked until then.
func TestBusyAgent(t *testing.T) {
	for _, name := range policies.Names() {
		r, err := sim.Run(sim.Config{
			Policy: policy(t, name), Cores: 4, Cost: sim.Cost{Commit: 100 * ms, LocalCommit: 100 * ms}, Seed: 1,
			Instances: workload(t, "exp", 0.7, 4, 1, 0), Horizon: 10 * ms,
		})
		require.NoError(t, err)
		require.LessOrEqual(t, r.Agent, 1.0, name)
		require.Greater(t, r.Agent, 0.9, name)
	}
}

// Tables of hints of as many programs as there may be fit into memory.
func TestManyHinted(t *testing.T) {
	all := workload(t, "rocksdb", 0.5, 64, sim.MaxInstances, 0)
	for i := range all {
		all[i].Hinted = true
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := sim.Run(sim.Config{Policy: policy(t, "shinjuku"), Cores: 64, Cost: sim.Free, Seed: 1, Instances: all, Requests: 20_000})
	require.NoError(t, err)
	require.Equal(t, 20_000, r.Completed)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(512<<20))
}

// Who asks for what no run can be is told so.
func TestImpossibleLoads(t *testing.T) {
	for _, load := range []float64{-1, 1e-300, 1e-7, 11} {
		_, _, err := sim.Workload("exp", load, 4, 1, 0)
		require.ErrorIs(t, err, sim.ErrConfig, "%v", load)
	}
	r, err := sim.Run(sim.Config{Policy: policy(t, "sol"), Cores: 4, Instances: workload(t, "exp", 1e-6, 4, 4, 0), Requests: 1000})
	require.NoError(t, err)
	require.Less(t, r.Short.Quantile(1), ms, "they do not meet")
	_, err = sim.Run(sim.Config{
		Policy: policy(t, "sol"), Cores: 1, Cost: sim.Cost{Commit: cs.Time(time.Hour)}, Instances: workload(t, "exp", 10, 1, 1, 0), Requests: 1 << 21,
	})
	require.ErrorIs(t, err, sim.ErrConfig)
	require.ErrorIs(t, err, cs.ErrFull)
}
