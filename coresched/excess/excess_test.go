package excess

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	cs "junction/coresched"
)

// draw is a random time.
func draw(t *rapid.T, name string, from, to time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(int64(from), int64(to)).Draw(t, name))
}

// honest is an instance that complies.
type honest struct {
	Account
	Standing
	now, used cs.Time
	executing int // threads
}

// spend uses a number of cores, in thousandths, for some time.
func (h *honest) spend(passed cs.Time, cores int) {
	h.now += passed
	h.used += passed / 1000 * cs.Time(min(cores, 1000*h.Cores))
}

const handOff = 5 * time.Millisecond

// step goes on for some time with so many cores, and hears late of that.
func (h *honest) step(wants bool, has int, passed cs.Time) {
	h.Wants, h.Has, h.Free = wants, has, false
	h.Stand(h.now, h.Standing)
	before := h.executing
	switch {
	case wants && has == 0 && h.Guaranteed == 0: // it begins with one, and is then denied
		h.executing = 1
		h.spend(handOff, 1500)
		h.Free = true
		h.Stand(h.now, h.Standing)
		h.spend(passed-handOff, 2000)
		return
	case wants:
		h.executing = max(has, h.Guaranteed)
	default:
		h.executing = 0
	}
	beside := 400 // moments of which nobody hears, too
	if wants {
		beside = 500 * (h.executing + 1)
	}
	h.spend(handOff, 1000*max(before, h.executing)+beside)
	h.spend(passed-handOff, 1000*h.executing+beside)
}

// An honest instance is never suspected, however it comes and goes: it uses what it
// has, for a moment what it had, or will have, and has a network and a kernel beside its
// threads.
func TestHonest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := honest{now: draw(t, "start", 0, time.Hour)}
		h.Cores = rapid.IntRange(1, cs.MaxCPUs).Draw(t, "cores")
		h.Guaranteed = rapid.IntRange(0, h.Cores).Draw(t, "guaranteed")
		h.Begin(h.now, h.Standing)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			wants, has := rapid.Bool().Draw(t, "wants"), 0
			if wants {
				has = rapid.IntRange(0, h.Cores).Draw(t, "has")
			}
			// A demand is remembered for some milliseconds, so changes are no denser.
			h.step(wants, has, draw(t, "passed", 16*time.Millisecond, 10*time.Second))
			if rapid.IntRange(0, 3).Draw(t, "look") > 0 {
				require.Equal(t, Fine, h.Look(h.now, h.used), "%+v", h)
				h.used = 0
			}
		}
	})
}

// One that uses all cores without wanting any is held soon, and again after that, for
// longer and longer, but not for ever longer.
func TestLiar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cores := rapid.IntRange(1, 64).Draw(t, "cores")
		s := Standing{Wants: rapid.Bool().Draw(t, "wants")}
		if rapid.Bool().Draw(t, "settled at once") {
			s.Has = rapid.IntRange(1, 16).Draw(t, "has")
			cores = 2*s.Has + 2
		}
		s.Cores = cores
		now, last := cs.Time(0), cs.Time(0)
		var a Account
		for range 12 {
			a.Begin(now, s)
			from := now
			for v := Fine; v != Excess; {
				passed := draw(t, "passed", time.Millisecond, time.Second)
				now += passed
				if v = a.Look(now, passed*time.Duration(cores)); v != Excess {
					require.Less(t, now-from, 4*(Burst+64*BurstPerCore)+time.Second, "a quarter of a core too much")
				}
			}
			long, over := a.Held()
			require.Equal(t, now+long, over)
			require.Equal(t, min(max(FirstHold, 2*last), LongestHold), long)
			now, last = over+draw(t, "until it lies again", 0, Forgiven*long/4), long
		}
		now += Forgiven*LongestHold + 1
		a.Begin(now, s)
		for a.Look(now+time.Second, time.Duration(cores)*time.Second) != Excess {
			now += time.Second
		}
		long, _ := a.Held()
		require.Equal(t, FirstHold, long, "it is forgiven")
	})
}

// What is held, or has only what others leave, may use all it can get, and it cannot
// save up what it does not use.
func TestFree(t *testing.T) {
	var a Account
	a.Begin(0, Standing{Cores: 8, Free: true})
	require.Equal(t, Fine, a.Look(100*time.Second, 800*time.Second))
	require.Equal(t, Fine, a.Look(1000*time.Second, 0))
	a.Stand(1000*time.Second, Standing{Cores: 8})
	require.Equal(t, Suspect, a.Look(1001*time.Second, 1350*time.Millisecond))
	require.Equal(t, 600*time.Millisecond, a.Debt())
	require.Equal(t, Excess, a.Look(1002*time.Second, 1300*time.Millisecond))
	require.Zero(t, a.Debt())
}

// Whatever the figures are, holds are bounded, and no sum runs over.
func TestAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a Account
		now := cs.Time(0)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			s := Standing{
				Cores: rapid.IntRange(0, cs.MaxCPUs).Draw(t, "cores"), Has: rapid.IntRange(0, math.MaxInt32).Draw(t, "has"),
				Guaranteed: rapid.IntRange(0, math.MaxInt32).Draw(t, "guaranteed"),
				Wants:      rapid.Bool().Draw(t, "wants"), Free: rapid.Bool().Draw(t, "free"),
			}
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				a.Begin(now, s)
			case 1:
				a.Stand(now, s)
			case 2:
				a.Look(now, time.Duration(rapid.Int64().Draw(t, "used")))
			}
			require.GreaterOrEqual(t, a.debt, cs.Time(0))
			require.GreaterOrEqual(t, a.allowed, cs.Time(0))
			long, _ := a.Held()
			require.LessOrEqual(t, long, LongestHold)
			now += draw(t, "passed", -time.Second, 1000*time.Hour)
			now = max(now, 0)
		}
	})
}

func BenchmarkLook(b *testing.B) {
	var a Account
	b.ReportAllocs()
	for n := cs.Time(0); b.Loop(); n += time.Millisecond {
		a.Stand(n, Standing{Cores: 2, Has: 1})
		a.Look(n, 0)
	}
}
