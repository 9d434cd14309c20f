package impair

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const minFrame = 22 // Ethernet header and the number that makes a test's frame unique

// testFrame makes a frame that tells its number.
func testFrame(number uint64, size int) []byte {
	f := bytes.Repeat([]byte{byte(number)}, max(size, minFrame))
	binary.BigEndian.PutUint64(f[14:], number)
	return f
}

func probability() *rapid.Generator[float64] {
	return rapid.OneOf(rapid.Just(0.0), rapid.Just(1.0), rapid.Float64Range(0, 1))
}

func duration(most time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(0, int64(most)), func(n int64) time.Duration { return time.Duration(n) })
}

func direction(t *rapid.T) Direction {
	return Direction{
		Loss: probability().Draw(t, "loss"), Duplicate: probability().Draw(t, "dup"),
		Corrupt: probability().Draw(t, "corrupt"), Reorder: probability().Draw(t, "reorder"),
		ReorderDepth: rapid.IntRange(0, 5).Draw(t, "depth"),
		ReorderWait:  duration(time.Second).Draw(t, "wait"),
		Delay:        duration(time.Second).Draw(t, "delay"),
		Jitter:       duration(time.Second).Draw(t, "jitter"),
		Rate:         rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(1000, 1e10)).Draw(t, "rate"),
		Queue:        rapid.IntRange(0, 40).Draw(t, "queue"),
	}
}

// conserved checks the equation that Counters promises.
func conserved(t require.TestingT, c Counters) {
	require.Equal(t, c.In+c.Duplicated, c.Out+c.Lost+c.QueueFull+c.Waiting, "%+v", c)
}

// TestLineConservesFrames drives a line with any plan and any order of pushes and
// pops. Nothing is made up, changed or forgotten but for what the counters say.
func TestLineConservesFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, seed := direction(t), rapid.Uint64().Draw(t, "seed")
		l, err := NewLine(d, seed)
		require.NoError(t, err)
		var now time.Duration
		var pushed [][]byte
		var corrupted uint64
		seen := map[uint64]int{}
		pop := func() bool {
			f, ok := l.Pop(now)
			if ok {
				corrupted += checkFrame(t, f, pushed, seen)
			}
			conserved(t, l.Counters())
			return ok
		}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now += duration(time.Second/10).Draw(t, "step")
			if rapid.Bool().Draw(t, "push") {
				f := testFrame(uint64(len(pushed)), rapid.IntRange(minFrame, 1514).Draw(t, "size"))
				pushed = append(pushed, f)
				l.Push(now, f)
				conserved(t, l.Counters())
			} else {
				pop()
			}
		}
		drain(l, &now, pop)
		c := l.Counters()
		require.Zero(t, c.Waiting)
		require.Equal(t, uint64(len(pushed)), c.In)
		require.Equal(t, c.Corrupted, corrupted)
	})
}

// drain pops until nothing waits, going from one due time to the next.
func drain(l *Line, now *time.Duration, pop func() bool) {
	for at, ok := l.Next(); ok; at, ok = l.Next() {
		*now = max(*now, at)
		if !pop() {
			panic("Next named a time at which Pop has nothing")
		}
	}
}

// checkFrame finds what was pushed as the frame, and returns 1 if one bit of it
// is different.
func checkFrame(t *rapid.T, f []byte, pushed [][]byte, seen map[uint64]int) uint64 {
	for i, p := range pushed {
		switch difference(f, p) {
		case 0, 1:
			seen[uint64(i)]++
			require.LessOrEqual(t, seen[uint64(i)], 2, "frame %d came three times", i)
			return uint64(difference(f, p))
		}
	}
	t.Fatalf("frame %x was never pushed", f[:minFrame])
	return 0
}

// difference counts the bits that differ.
func difference(a, b []byte) int {
	if len(a) != len(b) {
		return math.MaxInt
	}
	n := 0
	for i := range a {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

func TestZeroPlanPassesFramesAtOnceInOrder(t *testing.T) {
	l, err := NewLine(Direction{}, 1)
	require.NoError(t, err)
	for n := range uint64(100) {
		l.Push(5, testFrame(n, 60))
	}
	for n := range uint64(100) {
		f, ok := l.Pop(5)
		require.True(t, ok)
		require.Equal(t, testFrame(n, 60), f)
	}
	_, ok := l.Pop(math.MaxInt64)
	require.False(t, ok)
}

// TestDelayIsKept checks both bounds of the time a frame takes.
func TestDelayIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Direction{Delay: duration(time.Second).Draw(t, "delay"), Jitter: duration(time.Second).Draw(t, "jitter")}
		l, err := NewLine(d, rapid.Uint64().Draw(t, "seed"))
		require.NoError(t, err)
		var pushed []time.Duration
		var now time.Duration
		for range rapid.IntRange(1, 50).Draw(t, "frames") {
			now += duration(time.Second).Draw(t, "gap")
			l.Push(now, testFrame(uint64(len(pushed)), 60))
			pushed = append(pushed, now)
		}
		for n, at := range pushed { // in order: jitter does not reorder
			due, ok := l.Next()
			require.True(t, ok)
			require.GreaterOrEqual(t, due, at+d.Delay)
			require.LessOrEqual(t, due, at+d.Delay+d.Jitter)
			_, ok = l.Pop(due - 1)
			require.False(t, ok)
			f, ok := l.Pop(due)
			require.True(t, ok)
			require.Equal(t, testFrame(uint64(n), 60), f)
		}
	})
}

// TestHeldFramesAreOvertaken checks that a held frame comes after exactly
// ReorderDepth younger ones when there are as many, else at its deadline.
func TestHeldFramesAreOvertaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Direction{
			Reorder: rapid.Float64Range(0, 0.5).Draw(t, "reorder"), ReorderDepth: rapid.IntRange(1, 6).Draw(t, "depth"),
			ReorderWait: time.Second,
		}
		seed, frames := rapid.Uint64().Draw(t, "seed"), rapid.Uint64Range(1, 100).Draw(t, "frames")
		l, err := NewLine(d, seed)
		require.NoError(t, err)
		var order []uint64
		var now time.Duration
		pop := func() bool {
			f, ok := l.Pop(now)
			if ok {
				order = append(order, binary.BigEndian.Uint64(f[14:]))
			}
			return ok
		}
		var straight []uint64 // those that are not held
		for n := range frames {
			l.Push(now, testFrame(n, 60))
			if !FateOf(d, seed, n, 60).Held {
				straight = append(straight, n)
			}
		}
		drain(l, &now, pop)
		require.Len(t, order, int(frames))
		for i, n := range order {
			if FateOf(d, seed, n, 60).Held {
				require.Equal(t, min(d.ReorderDepth, countAbove(straight, n)), countAbove(straightOf(order[:i], straight), n))
			}
		}
	})
}

func countAbove(ns []uint64, n uint64) (count int) {
	for _, m := range ns {
		if m > n {
			count++
		}
	}
	return count
}

func straightOf(order, straight []uint64) (ns []uint64) {
	is := map[uint64]bool{}
	for _, n := range straight {
		is[n] = true
	}
	for _, n := range order {
		if is[n] {
			ns = append(ns, n)
		}
	}
	return ns
}

func TestRateSpacesFrames(t *testing.T) {
	l, err := NewLine(Direction{Rate: 8e6}, 1) // one byte a microsecond
	require.NoError(t, err)
	for n := range uint64(10) {
		l.Push(0, testFrame(n, 1000))
	}
	for n := range 10 {
		at, ok := l.Next()
		require.True(t, ok)
		require.Equal(t, time.Duration(n+1)*time.Millisecond, at)
		_, ok = l.Pop(at)
		require.True(t, ok)
	}
}

func TestQueueIsBounded(t *testing.T) {
	l, err := NewLine(Direction{Queue: 5, Delay: time.Second}, 1)
	require.NoError(t, err)
	for n := range uint64(12) {
		l.Push(0, testFrame(n, 60))
	}
	require.Equal(t, Counters{In: 12, QueueFull: 7, Waiting: 5}, l.Counters())
}

// TestProbabilitiesAreMet needs no tolerance of chance: the seed is fixed.
func TestProbabilitiesAreMet(t *testing.T) {
	const frames = 100000
	d := Direction{Loss: 0.03, Duplicate: 0.02, Corrupt: 0.01, Reorder: 0.05, Jitter: time.Second}
	var lost, dup, corrupt, held, jitter float64
	for n := range uint64(frames) {
		f := FateOf(d, 42, n, 100)
		require.Equal(t, f, FateOf(d, 42, n, 100))
		lost, dup, held = lost+one(f.Lost), dup+one(f.Duplicated), held+one(f.Held)
		corrupt += one(f.CorruptBit >= 0)
		jitter += f.Jitter.Seconds()
	}
	for _, c := range [][2]float64{{d.Loss, lost}, {d.Duplicate, dup}, {d.Corrupt, corrupt}, {d.Reorder, held}, {0.5, jitter}} {
		require.InDelta(t, c[0]*frames, c[1], 5*math.Sqrt(c[0]*frames)) // five sigma
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func TestSeedsDiffer(t *testing.T) {
	same := 0
	for n := range uint64(1000) {
		d := Direction{Loss: 0.5}
		same += int(one(FateOf(d, 1, n, 60).Lost == FateOf(d, 2, n, 60).Lost))
	}
	require.InDelta(t, 500, same, 60)
}

func TestBadPlans(t *testing.T) {
	for want, d := range map[string]Direction{
		"Loss -1":       {Loss: -1},
		"Duplicate NaN": {Duplicate: math.NaN()},
		"Reorder 1.1":   {Reorder: 1.1},
		"Delay":         {Delay: -1},
		"Jitter 2m":     {Jitter: 2 * time.Minute},
		"Rate -1":       {Rate: -1},
	} {
		_, err := NewLine(d, 1)
		require.ErrorContains(t, err, want)
	}
}

func BenchmarkLine(b *testing.B) {
	l, err := NewLine(Direction{Loss: 0.01, Duplicate: 0.01, Reorder: 0.01, Corrupt: 0.01}, 1)
	require.NoError(b, err)
	frame := testFrame(1, 1514)
	b.ReportAllocs()
	var now time.Duration
	for b.Loop() {
		now++
		l.Push(now, frame)
		for _, ok := l.Pop(now); ok; _, ok = l.Pop(now) {
		}
	}
}
