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
		require.Zero(t, b.after(0))
	}
	for wait := firstBackoff; wait < mostBackoff; wait *= 2 {
		require.Equal(t, wait, b.after(0))
	}
	for range 100 {
		require.Equal(t, mostBackoff, b.after(0))
	}
	require.Zero(t, b.after(livedWell))
	require.Equal(t, firstBackoff, b.after(0))
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
			wait := b.after(life)
			require.LessOrEqual(t, wait, mostBackoff)
			if wait > 0 {
				require.GreaterOrEqual(t, wait, firstBackoff)
				return
			}
			require.LessOrEqual(t, time.Duration(free+1)*livedWell, lived+spareLives*livedWell, "ends that cost nothing")
			if life >= livedWell {
				require.Zero(t, b.after(livedWell))
			}
		}
	})
}
