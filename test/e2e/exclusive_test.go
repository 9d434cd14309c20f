package e2e

import (
	"errors"
	"fmt"
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

// cpusetMount is where cgroup v1 has the cpuset controller, as a rule.
const cpusetMount = "/sys/fs/cgroup/cpuset"

// cpusetForTest makes a cpuset of two cores for what the test starts: no other task
// is moved.
func cpusetForTest(t *testing.T) (dir string, cores [2]string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(cpusetMount, "cpuset.cpus")); err != nil {
		t.Skip("cgroup v1's cpuset controller is not mounted here; that of v2 is not supported:", err)
	}
	lock, err := os.Open(cpusetMount) // which package coresched/live's tests lock too
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close() })
	require.Eventually(t, func() bool { return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil },
		time.Minute, 10*time.Millisecond, "other tests' cpusets")
	old, err := filepath.Glob(filepath.Join(cpusetMount, "junction-test-*"))
	require.NoError(t, err)
	for _, dir := range old {
		removeCpuset(t, dir) // of a test that was killed
	}
	others, err := filepath.Glob(filepath.Join(cpusetMount, "*", "cpuset.cpus"))
	require.NoError(t, err)
	for _, file := range others {
		if b, err := os.ReadFile(file); err == nil && len(strings.TrimSpace(string(b))) > 0 {
			t.Skipf("others have cpusets beside the test's: %s is %s", file, b)
		}
	}
	var cpus unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &cpus))
	for c, n := 0, 0; n < 2; c++ {
		if cpus.IsSet(c) {
			cores[n] = strconv.Itoa(c)
			n++
		}
	}
	mems, err := os.ReadFile(filepath.Join(cpusetMount, "cpuset.mems"))
	require.NoError(t, err)
	dir = filepath.Join(cpusetMount, fmt.Sprint("junction-test-", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		t.Skip("cpusets are read-only here:", err)
	} else {
		require.NoError(t, err)
	}
	t.Cleanup(func() { removeCpuset(t, dir) })
	for _, x := range [][2]string{{"mems", strings.TrimSpace(string(mems))}, {"cpus", cores[0] + "," + cores[1]}, {"cpu_exclusive", "1"}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cpuset."+x[0]), []byte(x[1]), 0))
	}
	return dir, cores
}

// removeCpuset removes a cpuset and those in it; their tasks are everybody's.
func removeCpuset(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() {
			removeCpuset(t, filepath.Join(dir, e.Name()))
		}
	}
	require.Eventually(t, func() bool {
		moveThreads(t, dir, cpusetMount)
		return unix.Rmdir(dir) == nil
	}, time.Minute, 10*time.Millisecond, "the test's cpuset is empty")
}

// moveThreads moves all threads that a folder of the kernel lists to a cpuset:
// those of another one, or of a process.
func moveThreads(t *testing.T, from, to string) {
	var list []string
	if b, err := os.ReadFile(filepath.Join(from, "tasks")); err == nil {
		list = strings.Fields(string(b))
	} else if entries, err := os.ReadDir(from); err == nil {
		for _, e := range entries {
			list = append(list, e.Name())
		}
	}
	for _, tid := range list {
		if err := os.WriteFile(filepath.Join(to, "tasks"), []byte(tid), 0); !errors.Is(err, unix.ESRCH) {
			require.NoError(t, err)
		}
	}
}

// moveHere moves a process to a cpuset.
func moveHere(t *testing.T, pid int, dir string) {
	moveThreads(t, fmt.Sprintf("/proc/%d/task", pid), dir)
}

// TestSchedExclusive: an exclusive enclave keeps others off its core, by the verb,
// and gives it back when it ends, and when junctiond is killed, until the next one.
func TestSchedExclusive(t *testing.T) {
	needScheduler(t)
	needProcessors(t, 2)
	dir, cores := cpusetForTest(t)
	r := newRig(t, variant{engine: engines[0], driver: serverMode}, lab.Options{})
	moveHere(t, r.status().PID, dir)
	managed, stranger := startHostThreads(t), startHostThreads(t)
	for _, h := range []*hostThreads{managed, stranger} {
		moveHere(t, h.cmd.Process.Pid, dir)
		h.class, h.cores = h.scheduling()
	}
	only := func(h *hostThreads, core string) bool {
		_, set := h.scheduling()
		c, err := strconv.Atoi(core)
		require.NoError(t, err)
		return set.Count() == 1 && set.IsSet(c)
	}
	left := func() []string {
		all, err := filepath.Glob(filepath.Join(dir, "junction.*"))
		require.NoError(t, err)
		return all
	}
	create := func() {
		r.ctl(new(any), "sched", "enclave", "create", "mine", "--cpus", cores[1], "--exclusive")
		require.True(t, only(stranger, cores[0]))
		r.ctl(new(any), "sched", "policy", "set", "mine", "sol")
		r.ctl(new(any), "sched", "push", "mine", managed.pid())
		r.runs("mine")
		require.True(t, only(managed, cores[1]))
	}
	c := r.Server.Command(t.Context(), filepath.Join(commands, "junction_ctl"), "--socket", r.socket, "sched", "enclave", "create", "all", "--cpus", cores[0]+","+cores[1], "--exclusive")
	text, err := c.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(text), "leave them one at least")
	create()
	r.ctl(new(any), "sched", "enclave", "destroy", "mine")
	managed.restored()
	stranger.restored()
	require.Empty(t, left())
	create()
	r.touch() // the accounts are of a server that has seen frames
	r.monitor.kill()
	managed.restored()
	stranger.restored()
	require.Eventually(t, func() bool { return len(left()) == 0 }, readyTimeout, 5*time.Millisecond)
	r.startMonitor() // in another cpuset
	r.runs("mine")
	require.True(t, only(stranger, cores[0]))
	require.True(t, only(managed, cores[1]))
	r.ctl(new(any), "sched", "enclave", "destroy", "mine")
	managed.restored()
	stranger.restored()
	require.Empty(t, left())
}
