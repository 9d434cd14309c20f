package monitor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestBackoffGrows: servers that end at once wait longer and longer, but for the
// first few; one that lives again is replaced at once.
func TestBackoffGrows(t *testing.T) {
	b := newBackoff()
	for range spareLives {
		require.Zero(t, b.after(0, false))
	}
	for wait := firstBackoff; wait < mostBackoff; wait *= 2 {
		require.Equal(t, wait, b.after(0, false))
	}
	for range 100 {
		require.Equal(t, mostBackoff, b.after(0, false))
	}
	require.Zero(t, b.after(livedWell, false))
	require.Equal(t, firstBackoff, b.after(0, false))
}

// TestBackoffBounds: whatever servers do, there are no more ends than one for each
// livedWell of life or of waiting at least firstBackoff, and a few.
func TestBackoffBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBackoff()
		var lived time.Duration
		for free := range rapid.IntRange(0, 200).Draw(t, "ends") {
			life := time.Duration(rapid.Int64Range(0, int64(3*livedWell)).Draw(t, "life"))
			lived += life
			ready := rapid.Bool().Draw(t, "ready")
			wait := b.after(life, ready)
			require.LessOrEqual(t, wait, mostBackoff)
			if ready {
				require.LessOrEqual(t, wait, mostServed)
			}
			if wait > 0 {
				require.GreaterOrEqual(t, wait, firstBackoff)
				return
			}
			require.LessOrEqual(t, time.Duration(free+1)*livedWell, lived+spareLives*livedWell, "ends that cost nothing")
			if life >= livedWell {
				require.Zero(t, b.after(livedWell, false))
			}
		}
	})
}

// TestBackoffServed: however often a server that was ready is killed, the next
// one comes soon; one that never gets ready waits longer all the same.
func TestBackoffServed(t *testing.T) {
	b := newBackoff()
	for range 100 {
		require.LessOrEqual(t, b.after(0, true), mostServed)
	}
	require.Equal(t, 2*mostServed, b.after(0, false))
	require.Equal(t, mostServed, b.after(0, true))
}
