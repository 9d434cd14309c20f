package live

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestShortage: who computes without a core, or had one, is denied at the next look,
// who does not after some more, and who gets one or wants none begins anew.
func TestShortage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s shortage
		var clock, seen time.Duration // CPU time, and when last looked at
		looks, lasts := 0, false
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			clock += time.Duration(rapid.Int64Range(0, int64(2*little)).Draw(t, "computes"))
			if rapid.Bool().Draw(t, "changes") {
				now := rapid.Bool().Draw(t, "lacks a core")
				had := rapid.IntRange(0, 2).Draw(t, "cores before")
				if began := s.begin(now, had, func() time.Duration { return clock }); began != (now && !lasts) {
					t.Fatalf("begins: %v", began)
				}
				if now && !lasts {
					looks, seen = 0, clock
					if had > 0 {
						looks = patience
					}
				}
				lasts = now
				continue
			}
			if !lasts {
				continue
			}
			looks++
			if enough := s.enough(clock); enough != (clock-seen >= little || looks >= patience) {
				t.Fatalf("denied after %d looks and %v: %v", looks, clock-seen, enough)
			}
			seen = clock
		}
	})
}

// TestCPUTime: it is that of a process, whose number may be out of use.
func TestCPUTime(t *testing.T) {
	before := cpuTime(os.Getpid())
	require.Positive(t, before)
	for cpuTime(os.Getpid())-before < time.Millisecond {
		runtime.Gosched()
	}
	cmd, _ := command(t, role("worker")...)
	require.Eventually(t, func() bool { return cpuTime(cmd.Process.Pid) > 0 }, time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Zero(t, cpuTime(cmd.Process.Pid))
}
