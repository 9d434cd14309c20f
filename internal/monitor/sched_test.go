package monitor

import (
	"math"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/coresched/live"
	"junction/coresched/plugin"
	"junction/coresched/policies/sol"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// schedRole makes the tests' program a guard or a policy.
const schedRole = "JUNCTION_TEST_SCHED"

func playSched(role string) error {
	if role == "guard" {
		return live.Guard(os.Stdin)
	}
	plugin.Serve(sol.New(), plugin.Options{})
	return nil
}

func startSched(t *testing.T) (socket string) {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != "pid:[4026531836]" {
		t.Skip("this is a PID namespace of its own; BPF programs see the host's numbers")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF):", err)
	}
	return startWith(t, "works", func(o *Options) {
		o.Sched.Guard = []string{"/usr/bin/env", schedRole + "=guard", os.Args[0]}
		o.Sched.Policy = []string{"/usr/bin/env", schedRole + "=policy", os.Args[0]}
	})
}

// schedOf reads what a thread has: class, nice value and cores.
func schedOf(t *testing.T, tid int) (a unix.SchedAttr, cores unix.CPUSet) {
	attr, err := unix.SchedGetAttr(tid, 0)
	require.NoError(t, err)
	require.NoError(t, unix.SchedGetaffinity(tid, &cores))
	return unix.SchedAttr{Policy: attr.Policy, Nice: attr.Nice}, cores
}

// An enclave from beginning to end, by operators' orders.
func TestSched(t *testing.T) {
	socket := startSched(t)
	top := mustAsk[SchedTop](t, socket, wire.SchedLook)
	require.Empty(t, top.Enclaves)
	require.ErrorContains(t, give(t, socket, wire.SchedPush, wire.Sched{Enclave: "e", TIDs: []int{1}}, new(SchedResult)), "enclave")

	sleeper := exec.Command("/bin/sh", "-c", "while :; do sleep 0.01; done")
	sleeper.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	require.NoError(t, sleeper.Start())
	defer func() {
		_ = unix.Kill(-sleeper.Process.Pid, unix.SIGKILL)
		_ = sleeper.Wait()
	}()
	attr, cores := schedOf(t, sleeper.Process.Pid)
	first := firstCore(&cores)
	var r SchedResult
	require.NoError(t, give(t, socket, wire.SchedCreate, wire.Sched{Enclave: "e", CPUs: first}, &r))
	require.Equal(t, first, r.CPUs)
	require.Error(t, give(t, socket, wire.SchedCreate, wire.Sched{Enclave: "e", CPUs: first}, &r))
	require.Error(t, give(t, socket, wire.SchedCreate, wire.Sched{Enclave: "f", CPUs: "x"}, &r))
	for _, odd := range []int64{-1, math.MaxInt64, math.MinInt64} {
		require.ErrorContains(t, give(t, socket, wire.SchedCreate, wire.Sched{Enclave: "f", CPUs: first, RunnableTimeoutUS: odd}, &r), "runnable timeout")
	}
	require.NoError(t, give(t, socket, wire.SchedPolicy, wire.Sched{Enclave: "e", Policy: "sol"}, &r))
	require.Equal(t, "sol", r.Policy)
	require.Positive(t, r.BlackoutUS)
	require.NoError(t, give(t, socket, wire.SchedPush, wire.Sched{Enclave: "e", TIDs: []int{sleeper.Process.Pid}}, &r))
	require.Eventually(t, func() bool {
		top = mustAsk[SchedTop](t, socket, wire.SchedLook)
		return top.Enclaves[0].Entered > 3 && top.Enclaves[0].Handoffs > 10
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, give(t, socket, wire.SchedDestroy, wire.Sched{Enclave: "e"}, new(SchedResult)))
	gotAttr, gotCores := schedOf(t, sleeper.Process.Pid)
	require.Equal(t, attr, gotAttr)
	require.Equal(t, cores, gotCores)
}

// TestUnshared: an instance that is in an enclave is not asked to join one.
func TestUnshared(t *testing.T) {
	i := &instance{name: "web", peer: control.Peer{PID: 7}}
	require.NoError(t, i.unshared([]live.InstanceStatus{{Name: "web", PID: 8, Enclave: "e"}}))
	err := i.unshared([]live.InstanceStatus{{Name: "other", PID: 8}, {Name: "web", PID: 7, Enclave: "e"}})
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorContains(t, err, `in enclave "e"`)
}

func firstCore(cores *unix.CPUSet) string {
	for c := range 1024 {
		if cores.IsSet(c) {
			return itoa(c)
		}
	}
	return ""
}
