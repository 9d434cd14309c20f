package live

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/policies"
)

// roleEnv makes the test's program another one.
const roleEnv = "JUNCTION_TEST_ROLE"

// cpusetsEnv makes the actuator's enclave exclusive, in this cpuset.
const cpusetsEnv = "JUNCTION_TEST_CPUSETS"

// stateEnv is where the actuator has its record.
const stateEnv = "JUNCTION_TEST_STATE"

const workers = 5

// A policy runs threads: each has its class and its one core while it runs, and
// waits politely else; in the end they are as they were.
func TestLive(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	require.NoError(t, unix.Setpriority(unix.PRIO_PROCESS, tids[0], 5))
	before := originals(t, tids)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids))
	eventually(t, "hand-offs", func() bool { return enclaveOf(t, a, "e").Handoffs > 50 })
	a.mu.Lock()
	core := oneCore(t)
	running := a.machine.Running(core.Next(0))
	for _, m := range a.threads {
		o, err := readOriginal(m.tid)
		require.NoError(t, err)
		require.Equal(t, core, o.cpus)
		want := uint32(unix.SCHED_IDLE)
		if m.task == running {
			want = unix.SCHED_NORMAL
			require.Equal(t, m.nice, o.nice)
		}
		require.Equal(t, want, o.policy, "%s", m.comm)
	}
	a.mu.Unlock()
	progress(t, tids)
	s := enclaveOf(t, a, "e")
	require.Equal(t, workers, s.Tasks)
	require.Equal(t, "fifo-central", s.Policy)
	require.True(t, s.AgentOnline)
	require.Len(t, a.Threads(), workers)
	require.NoError(t, a.Destroy("e"))
	asBefore(t, tids, before)
	require.Empty(t, a.Threads())
	progress(t, tids)
}

// Any policy may follow any other while threads run.
func TestReplace(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	before := originals(t, tids)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	require.NoError(t, a.Push("e", tids))
	require.Equal(t, "idle", enclaveOf(t, a, "e").Status)
	asBefore(t, tids, before)
	for _, name := range policies.Names() {
		blackout, err := a.SetPolicy("e", name, nil)
		require.NoError(t, err)
		from := enclaveOf(t, a, "e").Handoffs
		eventually(t, name+" runs threads", func() bool { return enclaveOf(t, a, "e").Handoffs > from+10 })
		t.Logf("%s after %v", name, blackout)
	}
	require.EqualValues(t, len(policies.Names()), enclaveOf(t, a, "e").Policies)
	require.Zero(t, enclaveOf(t, a, "e").Crashes)
}

func TestPolicyDies(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	before := originals(t, tids)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids))
	eventually(t, "hand-offs", func() bool { return enclaveOf(t, a, "e").Handoffs > 10 })
	require.NoError(t, unix.Kill(enclaveOf(t, a, "e").PID, unix.SIGKILL))
	asBefore(t, tids, before)
	eventually(t, "it is noticed", func() bool { return enclaveOf(t, a, "e").Crashes == 1 })
	progress(t, tids)
	_, err = a.SetPolicy("e", "biff", nil)
	require.NoError(t, err)
	from := enclaveOf(t, a, "e").Handoffs
	eventually(t, "the successor runs threads", func() bool { return enclaveOf(t, a, "e").Handoffs > from+10 })
}

// A policy that stands still loses its enclave to the watchdog, whatever its
// runnable timeout, and nothing else does.
func TestPolicyStops(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	before := originals(t, tids)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids))
	pid := enclaveOf(t, a, "e").PID
	require.NotZero(t, pid)
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	from := time.Now()
	eventually(t, "the policy is taken away", func() bool { return !enclaveOf(t, a, "e").AgentOnline })
	s := enclaveOf(t, a, "e")
	t.Logf("found out after %v, restored in %v µs", time.Since(from), s.RestoredUS)
	require.EqualValues(t, 1, s.Standstills, s.LastEnd)
	asBefore(t, tids, before)
	progress(t, tids)
	_, err = a.SetPolicy("e", "biff", nil)
	require.NoError(t, err)
	handoffs := enclaveOf(t, a, "e").Handoffs
	eventually(t, "the successor runs threads", func() bool { return enclaveOf(t, a, "e").Handoffs > handoffs+10 })
}

// A policy that lets threads wait loses its enclave too, if it has a limit.
func TestRunnableTimeout(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	before := originals(t, tids)
	require.NoError(t, a.Create("e", oneCore(t), time.Second))
	_, err := a.SetPolicy("e", "fifo-central", nil) // without slices
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids))
	// Threads that block at times are never late: nothing is told of them any more, and
	// what was told before, which may be on its way, does not count.
	eventually(t, "the policy is taken away", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, tid := range tids {
			a.watch.drop(tid)
			a.wakes(a.threads[tid], true)
		}
		a.carryOut()
		return a.enclaves["e"].driver == nil
	})
	require.NotZero(t, enclaveOf(t, a, "e").Stalls)
	asBefore(t, tids, before)
}

// A policy that only is slow, because the machine has no time for it, keeps its
// enclave.
func TestSlowPolicy(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	burner := exec.Command("/bin/sh", "-c", "while :; do :; done")
	require.NoError(t, burner.Start())
	defer func() {
		_ = burner.Process.Kill()
		_ = burner.Wait()
	}()
	core := oneCore(t)
	set := toLinux(&core)
	require.NoError(t, unix.SchedSetaffinity(burner.Process.Pid, &set))
	pid := enclaveOf(t, a, "e").PID
	for tid := range threadsInProc(t, pid) { // it has what the burner leaves: next to nothing
		require.NoError(t, unix.SchedSetaffinity(tid, &set))
		require.NoError(t, setAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}))
	}
	require.NoError(t, a.Push("e", tids))
	sent := time.Now()
	eventually(t, "messages have come", func() bool {
		return time.Since(sent) > time.Second && enclaveOf(t, a, "e").Messages > 0
	})
	s := enclaveOf(t, a, "e")
	require.True(t, s.AgentOnline, s.LastEnd)
	require.NoError(t, burner.Process.Kill())
	for tid := range threadsInProc(t, pid) { // others may want the core as well
		require.NoError(t, setAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}))
	}
	from := enclaveOf(t, a, "e").Handoffs
	eventually(t, "it goes on", func() bool { return enclaveOf(t, a, "e").Handoffs > from+10 })
	require.Zero(t, enclaveOf(t, a, "e").Standstills)
}

// The actuator is killed, or stands still: the guard restores all threads. One
// that goes on takes them again when it is told to, under another guard.
func TestActuatorDies(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			needHost(t)
			tids := startWorkers(t)
			before := originals(t, tids)
			cmd, out := startActuator(t, oneCore(t), tids)
			eventually(t, "a thread is taken", func() bool { return originals(t, tids[:1])[0] != before[0] })
			require.NoError(t, cmd.Process.Signal(signal))
			asBefore(t, tids, before)
			progress(t, tids)
			hang := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			defer hang.Stop()
			if signal == unix.SIGSTOP { // going on without its guard it takes no thread again
				require.NoError(t, cmd.Process.Signal(unix.SIGCONT))
				require.True(t, out.Scan())
				require.Equal(t, "without a policy", out.Text())
				require.True(t, out.Scan())
				require.Equal(t, "again", out.Text(), "with another guard")
				eventually(t, "a thread is taken again", func() bool { return originals(t, tids[:1])[0] != before[0] })
				require.NoError(t, cmd.Process.Kill())
				asBefore(t, tids, before)
			}
		})
	}
}

// New threads and processes join their maker's enclave, are counted, and get
// back what their maker had.
func TestChildren(t *testing.T) {
	const children = 150
	a := newActuator(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "shinjuku", nil)
	require.NoError(t, err)
	script := fmt.Sprintf("read go; i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done; sleep 300 & echo $!; wait", children)
	cmd := exec.Command("/bin/sh", "-c", script)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var last int
	defer func() {
		_ = cmd.Process.Kill()
		if last > 0 {
			_ = unix.Kill(last, unix.SIGKILL)
		}
		_ = cmd.Wait()
	}()
	before := originals(t, []int{cmd.Process.Pid})
	require.NoError(t, a.Push("e", []int{cmd.Process.Pid}))
	_, err = io.WriteString(in, "go\n")
	require.NoError(t, err)
	out := bufio.NewScanner(pipe)
	require.True(t, out.Scan())
	last, err = strconv.Atoi(out.Text())
	require.NoError(t, err)
	eventually(t, "all have come, the sleeper and its maker are left", func() bool {
		s := enclaveOf(t, a, "e")
		return s.Entered >= children+2 && s.Tasks == 2
	})
	require.EqualValues(t, children+2, enclaveOf(t, a, "e").Entered)
	require.NoError(t, a.Destroy("e"))
	asBefore(t, []int{cmd.Process.Pid, last}, []original{before[0], before[0]})
}

func TestRefusals(t *testing.T) {
	a := newActuator(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	require.ErrorIs(t, a.Create("e", oneCore(t), 0), ErrExists)
	require.ErrorIs(t, a.Create("f", oneCore(t), 0), cs.ErrCPU)
	for _, name := range []string{"", "a b", "a\x1b[31m", "\xff", strings.Repeat("x", 65)} {
		require.ErrorIs(t, a.Create(name, oneCore(t), 0), ErrName)
	}
	require.ErrorIs(t, a.Push("none", []int{1}), ErrEnclave)
	require.ErrorIs(t, a.Push("e", []int{2}), ErrRefused, "the kernel's")
	require.ErrorIs(t, a.Push("e", []int{os.Getpid()}), ErrRefused)
	require.ErrorIs(t, a.Push("e", []int{guardOf(a)}), ErrRefused)
	require.ErrorIs(t, a.Push("e", []int{0}), ErrThread)
	require.ErrorIs(t, a.Push("e", []int{1 << 30}), ErrThread)
	require.ErrorIs(t, a.Destroy("none"), ErrEnclave)
	_, err := a.SetPolicy("e", "lottery", nil)
	require.ErrorContains(t, err, "no such policy", "what the process itself says")
	_, err = a.SetPolicy("e", "/nonexistent/policy", nil)
	require.Error(t, err)
	tids := startWorkers(t)
	require.NoError(t, a.Push("e", tids[:1]))
	require.ErrorIs(t, a.Push("e", tids[:1]), ErrRefused, "twice")
	require.NoError(t, a.Close())
	require.ErrorIs(t, a.Create("g", oneCore(t), 0), ErrClosed)
	require.True(t, errors.Is(a.Destroy("e"), ErrClosed))
}

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("12 (a) (b c) R 1 2 3 4 5 4194304 7 8 9 10 11 12 13 14 15 16 17 18 190 20"))
	require.NoError(t, err)
	require.Equal(t, stat{comm: "a) (b c", state: 'R', flags: 4194304, ticks: 11 + 12, started: 190}, s)
}

func TestTail(t *testing.T) {
	w := &tail{logger: slog.New(slog.DiscardHandler)}
	for _, text := range []string{"one\ntw", "o\n", "[DEBUG] three\n", strings.Repeat("x", 10*maxLine), "\nlast\n\n"} {
		n, err := w.Write([]byte(text))
		require.NoError(t, err)
		require.Len(t, text, n)
		require.Less(t, len(w.part), maxLine)
	}
	require.Equal(t, "one", w.first)
	require.Equal(t, "last", w.last)
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (a) (b c) R " + strings.Repeat("1 ", 20))
	f.Fuzz(func(t *testing.T, line string) { _, _ = parseStat([]byte(line)) })
}
