package cores

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestWishOfAMoment: who executes for a moment after a long rest is gone at the next
// look, who does so again and again stays.
func TestWishOfAMoment(t *testing.T) {
	var w wish
	w.begin(false)
	_, over := w.heed(&Demand{Turns: 1}, most, true)
	require.True(t, over)

	w.begin(true) // soon after
	d := Demand{Turns: 2}
	for range 100 {
		d.Turns++ // between any two looks
		_, over = w.heed(&d, most, true)
		require.False(t, over)
	}
	for n := range memory {
		want, over := w.heed(&d, most, true)
		require.Equal(t, n == memory-1, over, n)
		require.Equal(t, over, want == 0)
	}
}

// TestWish: what is wanted was found by one of the last looks, it is over when none
// has found anything for long enough, and never just after one did.
func TestWish(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wish
		soon := rapid.Bool().Draw(t, "soon")
		w.begin(soon)
		patience := 1
		if soon {
			patience = memory
		}
		var found []int
		quiet := 0
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			d := Demand{Executing: rapid.IntRange(0, 6).Draw(t, "executing") / 2, Waiting: rapid.IntRange(0, 6).Draw(t, "waiting") / 3}
			due, now := rapid.Bool().Draw(t, "due"), min(d.Executing+d.Waiting, most)
			want, over := w.heed(&d, most, due)
			found = append(found, now)
			if now > 0 {
				quiet = 0
			} else if due {
				quiet++
			}
			if over != (quiet >= patience) {
				t.Fatalf("over: %v, after %d quiet looks of %d", over, quiet, patience)
			}
			if expect := slices.Max(found[max(0, len(found)-memory):]); !over && want != expect {
				t.Fatalf("%d are wanted, not %d", want, expect)
			}
		}
	})
}
