package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
)

// TestEnclavesSurvive: junctiond is killed while threads and an instance of an enclave
// have much to do. Nobody stands still meanwhile, and the next junctiond has the same
// enclave with the same threads and the instance.
func TestEnclavesSurvive(t *testing.T) {
	needScheduler(t)
	needProcessors(t, 2)
	r := newRig(t, variant{engine: engines[0], driver: serverMode}, lab.Options{})
	h := startHostThreads(t)
	db := r.startConfigured("db", "runtime_priority lc\nruntime_kthreads 2\n", need(t, "redis-server"), "--protected-mode", "no", "--save", "")
	db.await("Ready to accept connections")
	r.ctl(new(any), "sched", "enclave", "create", "e", "--cpus", h.core())
	r.ctl(new(any), "sched", "policy", "set", "e", "ias")
	r.ctl(new(any), "sched", "push", "e", "db", h.pid())
	before := r.runs("e")
	askRedis(t, r)
	for range 2 {
		r.touch() // the accounts are of a server that has seen frames
		from := r.shows("e")
		r.monitor.kill()
		h.restored()
		require.EqualValues(t, unix.SCHED_NORMAL, class(t, from.Instances[0].PID))
		r.startMonitor()
		e := r.runs("e")
		require.Equal(t, "ias", e.Policy)
		require.Equal(t, before.PID, e.PID, "the policy's process goes on")
		require.Equal(t, before.CPUs, e.CPUs)
		t.Logf("without a policy for %.1f ms, most of it until the next junctiond was started", e.TakeoverUS/1000)
		require.Eventually(t, func() bool {
			now := r.shows("e")
			return len(now.Instances) == 1 && now.Instances[0].PID == from.Instances[0].PID && now.has(h.cmd.Process.Pid)
		}, readyTimeout, 10*time.Millisecond, "the instance and the thread are in again")
		askRedis(t, r)
		granted := r.shows("e").Instances[0].GrantedUS
		require.Positive(t, granted)
	}
	r.ctl(new(any), "sched", "enclave", "destroy", "e")
	h.restored()
	db.terminate(0)
	r.monitor.terminate(0)
	require.NoFileExists(t, r.socket+".state/sched.json")
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", before.PID))
	require.True(t, err != nil || strings.Contains(string(stat), ") Z "), "the policy has ended: %s", stat)
}

// shows asks for an enclave.
func (r *rig) shows(name string) (e enclaveStatus) {
	r.t.Helper()
	r.ctl(&e, "sched", "enclave", "show", name)
	return e
}

// has tells whether a thread is in the enclave.
func (e *enclaveStatus) has(tid int) bool {
	for _, t := range e.Threads {
		if t.TID == tid {
			return true
		}
	}
	return false
}
