package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
)

// schedEnclave is what junction_ctl sched prints of an enclave, as far as the
// tests read it.
type schedEnclave struct {
	Name       string  `json:"name"`
	CPUs       string  `json:"cpus"`
	Tasks      int     `json:"tasks"`
	Status     string  `json:"status"`
	Policy     string  `json:"policy"`
	PID        int     `json:"pid"`
	Entered    uint64  `json:"entered"`
	Handoffs   uint64  `json:"handoffs"`
	Crashes    uint64  `json:"crashes"`
	BlackoutUS float64 `json:"blackout_us"`
	TakeoverUS float64 `json:"takeover_blackout_us"`
}

// hostThreads are a process of the host that works a little, and its children.
type hostThreads struct {
	t     *testing.T
	cmd   *exec.Cmd
	class int
	cores unix.CPUSet
}

func startHostThreads(t *testing.T) *hostThreads {
	h := &hostThreads{t: t, cmd: exec.Command("/bin/sh", "-c", "while :; do sleep 0.01; done")}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, h.cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
		_ = h.cmd.Wait()
	})
	h.class, h.cores = h.scheduling()
	return h
}

func (h *hostThreads) pid() string { return fmt.Sprint(h.cmd.Process.Pid) }

func (h *hostThreads) scheduling() (class int, cores unix.CPUSet) {
	attr, err := unix.SchedGetAttr(h.cmd.Process.Pid, 0)
	require.NoError(h.t, err)
	require.NoError(h.t, unix.SchedGetaffinity(h.cmd.Process.Pid, &cores))
	return int(attr.Policy), cores
}

// restored waits until the process is scheduled as it was at first.
func (h *hostThreads) restored() {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		class, cores := h.scheduling()
		return class == h.class && cores == h.cores
	}, readyTimeout, 5*time.Millisecond, "threads are as they were")
}

func (h *hostThreads) core() string {
	for c := range 1024 {
		if h.cores.IsSet(c) {
			return fmt.Sprint(c)
		}
	}
	return ""
}

// runs waits until an enclave's policy has handed cores over.
func (r *rig) runs(name string) (e schedEnclave) {
	r.t.Helper()
	r.ctl(&e, "sched", "enclave", "show", name)
	from := e.Handoffs
	require.Eventually(r.t, func() bool {
		r.ctl(&e, "sched", "enclave", "show", name)
		return e.Handoffs > from+5
	}, readyTimeout, 20*time.Millisecond, "hand-offs")
	return e
}

// TestSchedVerbs: an enclave from beginning to end by its verbs: policies of
// junction_policy follow each other, one is killed, one of a third party takes
// over, and a killed monitor's successor has it all. Who is not root may only look.
func TestSchedVerbs(t *testing.T) {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != "pid:[4026531836]" {
		t.Skip("this is a PID namespace of its own; BPF programs see the host's numbers")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF):", err)
	}
	r := newRig(t, variant{engine: engines[0], driver: serverMode}, lab.Options{})
	h := startHostThreads(t)
	ordinary := func(args ...string) (string, error) {
		c := exec.Command(filepath.Join(commands, "junction_ctl"), append([]string{"--socket", r.socket, "sched"}, args...)...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	var e schedEnclave
	r.ctl(&e, "sched", "enclave", "create", "work", "--cpus", h.core())
	require.Equal(t, h.core(), e.CPUs)
	out, err := ordinary("enclave", "list")
	require.Error(t, err, "the socket is root's")
	require.Contains(t, out, "permission denied")
	require.NoError(t, os.Chmod(r.socket, 0o666)) // for users that start instances
	for _, args := range [][]string{
		{"enclave", "create", "mine", "--cpus", "0"}, {"enclave", "destroy", "work"}, {"policy", "set", "work", "sol"}, {"push", "work", h.pid()},
	} {
		out, err := ordinary(args...)
		require.Error(t, err, "%v", args)
		require.Contains(t, out, "ask as root", "%v", args)
	}
	out, err = ordinary("enclave", "list")
	require.NoError(t, err, out)
	require.Contains(t, out, "work")

	r.ctl(&e, "sched", "push", "work", h.pid())
	require.Equal(t, "idle", e.Status)
	h.restored()
	r.ctl(&e, "sched", "policy", "set", "work", "fifo-central")
	r.runs("work")
	r.ctl(&e, "sched", "policy", "set", "work", "shinjuku", "--param", "slice=1ms")
	require.Positive(t, e.BlackoutUS)
	e = r.runs("work")
	require.Equal(t, "shinjuku", e.Policy)
	require.NoError(t, syscall.Kill(e.PID, syscall.SIGKILL))
	h.restored()
	require.Eventually(t, func() bool {
		r.ctl(&e, "sched", "enclave", "show", "work")
		return e.Crashes == 1 && e.Status == "idle"
	}, readyTimeout, 20*time.Millisecond)
	r.ctl(&e, "sched", "policy", "set", "work", buildExample(t))
	e = r.runs("work")
	require.Equal(t, "lifo", e.Policy)
	var top struct {
		Threads []struct {
			TID     int    `json:"tid"`
			Enclave string `json:"enclave"`
		} `json:"threads"`
	}
	r.ctl(&top, "sched", "top")
	require.NotEmpty(t, top.Threads)
	require.Equal(t, "work", top.Threads[0].Enclave)

	r.touch() // the accounts are of a server that has seen frames
	r.monitor.kill()
	h.restored()
	pid := e.PID
	r.startMonitor()
	e = r.runs("work")
	require.Equal(t, "lifo", e.Policy)
	require.Equal(t, pid, e.PID, "the policy's process goes on")
	require.Positive(t, e.TakeoverUS)
	t.Logf("junctiond killed: %.1f ms without a policy, most of it until the next one was started", e.TakeoverUS/1000)
	r.ctl(&struct{}{}, "sched", "enclave", "destroy", "work")
	h.restored()
}

// buildExample builds the example of a policy as a third party would: in a module
// of its own, outside the repository.
func buildExample(t *testing.T) string {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	from, dir := filepath.Join(root, "coresched/plugin/example"), t.TempDir()
	for name, path := range map[string]string{"main.go": from, "go.mod": from, "go.sum": root} {
		b, err := os.ReadFile(filepath.Join(path, name))
		require.NoError(t, err)
		b = bytes.ReplaceAll(b, []byte("=> ../../.."), []byte("=> "+root))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	bin := filepath.Join(workDir(t), "lifo")
	c := exec.Command("go", "build", "-mod=mod", "-o", bin, ".")
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := c.CombinedOutput()
	require.NoError(t, err, strings.TrimSpace(string(text)))
	return bin
}
