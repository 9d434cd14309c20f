package engine

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestElectionTranscripts: who gets the slot, step by step. In each step the
// candidate makes so many Switches outside and the holder so many inside, then
// the candidate asks.
func TestElectionTranscripts(t *testing.T) {
	// An exchange costs 100 Switches and one for each resident page; a stub 50.
	policy := Policy{Saving: 10, Stub: 500, Move: 1000, Page: 10}
	type step struct {
		outside, holder, pages uint64
		moves                  bool
	}
	repeat := func(n int, s step) (steps []step) {
		for range n {
			steps = append(steps, s)
		}
		return steps
	}
	for name, steps := range map[string][]step{
		"the holder sleeps":                       append(repeat(4, step{outside: 12}), step{2, 0, 0, true}),
		"both have much memory: it takes longer":  append(repeat(10, step{outside: 100, pages: 1000}), step{50, 0, 1000, true}),
		"equally busy: never":                     repeat(10_000, step{outside: 16, holder: 16}),
		"the holder is a little less busy: never": repeat(10_000, step{outside: 16, holder: 12}),
		"the holder is much less busy":            append(repeat(3, step{outside: 16, holder: 2}), step{16, 2, 0, true}),
		"a short command beside a sleeping shell": repeat(1, step{outside: 49}),
		"a burst that the holder answers":         append(repeat(2, step{outside: 20}), step{holder: 100}, step{outside: 99}, step{1, 0, 0, true}),
	} {
		t.Run(name, func(t *testing.T) {
			e, c := election{Policy: policy}, candidate{}
			s := situation{outside: 5_000, holder: 70_000, held: true} // of before
			require.False(t, e.consider(&c, s), "what was before counts for nothing")
			for i, step := range steps {
				s.outside, s.holder, s.pages = s.outside+step.outside, s.holder+step.holder, step.pages
				require.Equalf(t, step.moves, e.consider(&c, s), "step %d: %+v", i, step)
			}
		})
	}
}

// TestElectionSparesStubs: an address space that has no stub yet moves in at
// once as often as a stub would have cost, and again as often as that paid.
func TestElectionSparesStubs(t *testing.T) {
	e, c := election{Policy: Policy{Saving: 40, Stub: 500, Move: 100}}, candidate{}
	s := situation{held: true}
	for range 5 {
		require.True(t, e.consider(&c, s))
		e.elected()
	}
	require.False(t, e.consider(&c, s), "now a stub is cheaper")
	s.inside += 10 // worth 40*10/4: one move
	require.True(t, e.consider(&c, s))
	require.False(t, e.consider(&c, s))
	s.inside += 1_000_000 // not saved up for ever
	for range 5 {
		require.True(t, e.consider(&c, s))
	}
	require.False(t, e.consider(&c, s))
}

// TestElectionFreeSlot: a slot that nobody holds costs what must be faulted in again.
func TestElectionFreeSlot(t *testing.T) {
	e := election{Policy: Policy{Saving: 10, Move: 1000, Page: 1}}
	require.True(t, e.consider(new(candidate), situation{}))
	c := new(candidate)
	require.False(t, e.consider(c, situation{pages: 100}))
	require.False(t, e.consider(c, situation{pages: 100, outside: 9}))
	require.True(t, e.consider(c, situation{pages: 100, outside: 10}))
}

// TestElectionChargesRunningThreads: each has to be stopped.
func TestElectionChargesRunningThreads(t *testing.T) {
	e, c := election{Policy: Policy{Saving: 1, Move: 1, Thread: 100}}, new(candidate)
	require.False(t, e.consider(c, situation{held: true, running: 3}))
	require.False(t, e.consider(c, situation{held: true, running: 3, outside: 300}))
	require.True(t, e.consider(c, situation{held: true, running: 2, outside: 300}))
}

// TestElectionForgetsAtNewTerm: what one holder does is not compared with what
// another has done.
func TestElectionForgetsAtNewTerm(t *testing.T) {
	e, c := election{Policy: Policy{Saving: 10, Move: 1000}}, candidate{}
	require.False(t, e.consider(&c, situation{held: true, holder: 7}))
	require.False(t, e.consider(&c, situation{held: true, holder: 7, outside: 50}))
	e.elected()
	require.False(t, e.consider(&c, situation{held: true, holder: 1000, outside: 50}))
	require.True(t, e.consider(&c, situation{held: true, holder: 1000, outside: 100}))
}

// TestMovesPayForThemselves: whatever programs do, moving costs in sum no more
// than Policy says.
func TestMovesPayForThemselves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		duration := func(name string, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(t, name))
		}
		p := Policy{
			Saving: duration("saving", 10_000), Stub: duration("stub", 1_000_000),
			Move: duration("move", 1_000_000), Thread: duration("thread", 1_000_000), Page: duration("page", 1000),
		}
		e := election{Policy: p}
		n := rapid.IntRange(2, 5).Draw(t, "address spaces")
		inside, outside, candidates := make([]uint64, n), make([]uint64, n), make([]candidate, n)
		holder := -1
		paid, may := time.Duration(0), p.Stub*time.Duration(n)
		for _, who := range rapid.SliceOfN(rapid.IntRange(0, n-1), 1, 300).Draw(t, "turns") {
			switches, pages := rapid.Uint64Range(0, 5000).Draw(t, "switches"), rapid.Uint64Range(0, 5000).Draw(t, "pages")
			if who == holder {
				inside[who] += switches
				may += p.Saving / insideShare * time.Duration(switches)
				continue
			}
			outside[who] += switches
			may += p.Saving * time.Duration(switches)
			s := situation{inside: inside[who], outside: outside[who], held: holder >= 0, pages: pages}
			if s.held {
				s.holder, s.running = inside[holder], rapid.Uint64Range(0, 9).Draw(t, "running")
			}
			if e.consider(&candidates[who], s) {
				paid += p.cost(s)
				holder = who
				e.elected()
			}
			require.LessOrEqual(t, paid, may)
		}
	})
}

// TestElectionSurvivesAnyCounts: no counts overflow into a credit.
func TestElectionSurvivesAnyCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, c := election{Policy: DefaultPolicy()}, candidate{}
		for range 5 {
			count := func(name string) uint64 { return rapid.Uint64().Draw(t, name) }
			e.consider(&c, situation{count("inside"), count("outside"), rapid.Bool().Draw(t, "held"), count("holder"), count("running"), count("pages")})
			require.GreaterOrEqual(t, c.credit, time.Duration(0))
		}
	})
	require.Equal(t, time.Duration(math.MaxInt64), saturate(1, 1, math.MaxUint64))
}
