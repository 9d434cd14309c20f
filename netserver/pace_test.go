package netserver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestPacer: whatever is sent and when, as long as the sender waits, never more
// leaves than the rate allows beside one burst and one batch; and a sender that
// always has something gets the rate.
func TestPacer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pacer
		rate := rapid.Uint64Range(1000, 1e9).Draw(t, "rate")
		p.rate.Store(rate)
		start := time.Unix(1000, 0)
		now, sent, batch := start, uint64(0), uint64(0)
		idle := time.Duration(0)
		for range rapid.IntRange(1, 100).Draw(t, "batches") {
			pause := time.Duration(rapid.Int64Range(0, 1e7).Draw(t, "pause"))
			n := rapid.Uint64Range(1, 1<<16).Draw(t, "bytes")
			now = now.Add(pause)
			idle += pause
			sent, batch = sent+n, max(batch, n)
			now = now.Add(p.pay(n, now))
			allowed := (now.Sub(start)+burst).Seconds()*float64(rate) + 1
			require.LessOrEqual(t, float64(sent), allowed)
			needed := (now.Sub(start) - idle).Seconds() * float64(rate)
			require.GreaterOrEqual(t, float64(sent)+1, needed)
		}
	})
}

func TestNoLimit(t *testing.T) {
	var p pacer
	require.Zero(t, p.pay(1<<40, time.Unix(1, 0)))
}

// TestLimit: a limited instance sends slower and loses nothing, another does not
// notice, and one that waits can be detached at once.
func TestLimit(t *testing.T) {
	b := newBench(t)
	require.ErrorIs(t, b.Limit(77, new(uint64), nil), ErrPort)
	rate := uint64(1000)
	require.NoError(t, b.Limit(1, &rate, nil))
	f := out(shared4, peer4, protoUDP, udp(80, 9, make([]byte, 1000)...)).bytes()
	b.send(1, f)
	b.nic.awaitSent(1)
	b.send(1, f)
	other := out(dedicated4, peer4, protoUDP, udp(80, 9)).bytes()
	b.send(3, other)
	require.Equal(t, [][]byte{other}, b.nic.awaitSent(1), "the limited one's has to wait a second")
	require.NoError(t, b.Detach(1))
}

// TestFines: what goes nowhere costs nothing now and then, and else takes as long
// as it is fined, whatever the batches.
func TestFines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pacer
		start := time.Unix(1, 0)
		now, n := start, uint64(0)
		for range rapid.IntRange(1, 100).Draw(t, "batches") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "µs")) * time.Microsecond)
			k := rapid.Uint64Range(0, batchFrames).Draw(t, "dropped")
			n += k
			now = now.Add(p.fine(k, droppedFine, now))
			require.GreaterOrEqual(t, now.Sub(start)+burst, time.Duration(n)*droppedFine)
		}
		require.EqualValues(t, time.Duration(n)*droppedFine, p.total.Load())
		now = now.Add(time.Second)
		require.Zero(t, p.fine(uint64(burst/droppedFine), droppedFine, now), "a few, after a while")
	})
}
