package libos

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNextPercent(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		percent int
		since   time.Duration
		live    uint64
		want    int
	}{
		{100, time.Millisecond, 4 * mib, 200},
		{200, time.Millisecond, 4 * mib, 400},
		{400, time.Millisecond, 4 * mib, 400},
		{400, time.Millisecond, 16 * mib, 200},
		{400, time.Millisecond, 1000 * mib, 100},
		{100, time.Millisecond, 0, 200},
		{400, time.Minute, 4 * mib, 100},
	} {
		require.Equal(t, tc.want, nextPercent(tc.percent, tc.since, tc.live), "%+v", tc)
	}
	rapid.Check(t, func(t *rapid.T) {
		live := rapid.Uint64().Draw(t, "live")
		percent := nextPercent(rapid.IntRange(100, 400).Draw(t, "percent"), time.Duration(rapid.Int64Min(0).Draw(t, "since")), live)
		require.True(t, percent >= usualPercent && percent <= mostPercent)
		if live > mostGarbage {
			require.Equal(t, usualPercent, percent)
		}
	})
}

// The collector's pace changes while collections follow each other quickly.
func TestPaceCollector(t *testing.T) {
	done := make(chan int, 2)
	c := &collector{percent: usualPercent, last: time.Now().Add(time.Hour)} // the next seems to come at once
	c.set = func(percent int) int { done <- percent; return usualPercent }
	c.await()
	deadline := time.After(time.Minute)
	for {
		runtime.GC()
		select {
		case percent := <-done:
			require.Greater(t, percent, usualPercent)
			return
		case <-deadline:
			t.Fatal("no collection was noticed")
		default:
		}
	}
}
