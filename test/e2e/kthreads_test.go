package e2e

import (
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// needProcessors skips a test on a machine that grants fewer: --kthreads is
// bounded by what there is.
func needProcessors(t *testing.T, n int) {
	t.Helper()
	if runtime.NumCPU() < n {
		t.Skipf("needs %d processors, there are %d", n, runtime.NumCPU())
	}
}

// TestKthreads: threads that compute share the processors that they may use,
// in time slices, with one that sleeps: each gets its turns.
func TestKthreads(t *testing.T) {
	needProcessors(t, 2)
	program := compile(t, "spin")
	eachEngine(t, func(t *testing.T, engine string) {
		for _, kthreads := range []int{1, 2} {
			i := start(t, isolated(engine, "--stats=json", "--kthreads", strconv.Itoa(kthreads)), program, "8", "20")
			r := finish(t, i)
			require.True(t, strings.HasPrefix(i.stdout.String(), "ok "), i.stdout.String())
			require.Equal(t, kthreads, r.Kthreads.Tokens)
			require.NotZero(t, r.Kthreads.Waits)
			require.NotZero(t, r.Kthreads.Yields)
			// The libOS's own work comes on top; threads that were not bounded
			// would use all processors.
			require.Less(t, r.UserSeconds, 1.5*float64(kthreads)*r.ElapsedSeconds)
		}
	})
}

// TestOneThreadIsNotInterrupted: without others there are no time slices.
func TestOneThreadIsNotInterrupted(t *testing.T) {
	needProcessors(t, 2)
	program := compile(t, "spin")
	eachEngine(t, func(t *testing.T, engine string) {
		// One computes, the main thread sleeps: two processors are enough.
		r := finish(t, start(t, isolated(engine, "--stats=json", "--kthreads", "2"), program, "1", "20"))
		require.Zero(t, r.Kthreads.Waits)
		require.Zero(t, r.Kthreads.Yields)
	})
}

// TestQuantum: with slices longer than the program, those that compute are
// never interrupted.
func TestQuantum(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		const script = `a=0; while [ $a -lt 20000 ]; do a=$((a+1)); done & b=0; while [ $b -lt 20000 ]; do b=$((b+1)); done; wait; echo $b`
		for _, quantum := range []string{"0", "50us", "1h"} {
			i := start(t, isolated(engine, "--stats=json", "--kthreads", "1", "--quantum", quantum), "sh", "-c", script)
			r := finish(t, i)
			require.Equal(t, "20000\n", i.stdout.String())
			switch quantum {
			case "50us":
				require.NotZero(t, r.Kthreads.Yields)
			case "1h":
				require.Zero(t, r.Kthreads.Yields)
			}
		}
	})
}
