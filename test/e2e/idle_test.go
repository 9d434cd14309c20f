package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
)

// wakeUps is how often threads of a process have come to a core so far: each left
// it again, by itself or not.
func wakeUps(t *testing.T, pid int) (sum int) {
	t.Helper()
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(name, "ctxt_switches") {
				n, err := strconv.Atoi(strings.TrimSpace(value))
				require.NoError(t, err)
				sum += n
			}
		}
	}
	return sum
}

// TestIdleInstance: an instance in an enclave that has nothing to do holds no core,
// and wakes no more often than one that is in none: nobody asks it anything, and
// it looks for nothing.
func TestIdleInstance(t *testing.T) {
	needScheduler(t)
	eachEngine(t, func(t *testing.T, engine string) {
		if engine != "inproc" {
			t.Skip("gVisor's systrap looks after its fast path each 400 µs (controlFastPath), so an instance on it is never idle")
		}
		r := newRig(t, variant{engine: engine, driver: serverMode}, lab.Options{})
		i := r.startConfigured("idle", "runtime_priority lc\nruntime_guaranteed_kthreads 1\n", need(t, "sh"), "-c", "echo ready; exec sleep 1000")
		i.await("ready")
		pid := i.cmd.Process.Pid
		in := func(length time.Duration) int {
			before := wakeUps(t, pid)
			time.Sleep(length)
			return wakeUps(t, pid) - before
		}
		const length = time.Second
		const more = 10 // polling each 100 ms would be 20 switches
		alone := in(length)
		for range 3 { // what it does at its start is over some time
			alone = min(alone, in(length))
		}

		r.ctl(new(any), "sched", "enclave", "create", "e", "--cpus", firstCPU(t))
		r.ctl(new(any), "sched", "policy", "set", "e", "ias")
		r.ctl(new(any), "sched", "push", "e", "idle")
		var e enclaveStatus
		nothing := func() bool {
			r.ctl(&e, "sched", "enclave", "show", "e")
			return len(e.Instances) == 1 && e.Instances[0].Want == 0 && e.Instances[0].Cores == ""
		}
		require.Eventually(t, nothing, time.Minute, 20*time.Millisecond, "it wants nothing")
		grants := e.Instances[0].Grants
		// Frames for all instances come when the kernel likes; who polls does so always.
		var joined int
		require.Eventually(t, func() bool {
			joined = in(length)
			return joined <= alone+more
		}, time.Minute, time.Millisecond, "it wakes more often than alone, at all times")
		t.Logf("wake-ups in %v: %d alone, %d in the enclave", length, alone, joined)
		require.True(t, nothing())
		require.Equal(t, grants, e.Instances[0].Grants)
		i.signal(9)
		i.exit()
	})
}

// firstCPU is one that this process may use.
func firstCPU(t *testing.T) string {
	t.Helper()
	var cpus unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &cpus))
	for c := range 1024 {
		if cpus.IsSet(c) {
			return strconv.Itoa(c)
		}
	}
	return ""
}
