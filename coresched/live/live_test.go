package live

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/plugin"
	"junction/coresched/policies"
)

// roleEnv makes the test's program another one.
const roleEnv = "JUNCTION_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "guard":
		fatal(Guard(os.Stdin))
	case "policy":
		params, err := policies.ParseParams(os.Args[2:])
		fatal(err)
		p, err := policies.New(os.Args[1], params)
		fatal(err)
		plugin.Serve(p, plugin.Options{})
	case "worker":
		work()
	case "actuator":
		fatal(actuate())
	case "sharer":
		fatal(share())
	case "hinter":
		fatal(giveHints())
	case "crowd":
		crowd()
	case "server":
		answer()
	case "execer":
		fatal(execute())
	case "maker":
		makeThreads()
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(roleEnv), err)
		os.Exit(1)
	}
}

// role is the command line of the test's program in another role.
func role(name string) []string {
	return []string{"/usr/bin/env", roleEnv + "=" + name, os.Args[0]}
}

// cpusetsEnv makes the actuator's enclave exclusive, in this cpuset.
const cpusetsEnv = "JUNCTION_TEST_CPUSETS"

// stateEnv is where the actuator has its record.
const stateEnv = "JUNCTION_TEST_STATE"

func options() Options {
	return Options{Guard: role("guard"), Policy: role("policy"), Cpusets: os.Getenv(cpusetsEnv), State: os.Getenv(stateEnv)}
}

const workers = 5

// work runs threads that compute a little and sleep a little, until the
// standard input ends. It prints their numbers first.
func work() {
	for range workers {
		go func() {
			runtime.LockOSThread()
			fmt.Println(unix.Gettid())
			for x := 1; ; time.Sleep(2 * time.Millisecond) {
				for range 50_000 {
					x *= 3
				}
				runtime.KeepAlive(x)
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// actuate is an actuator to be killed: it takes the threads of its arguments.
func actuate() error {
	a, err := New(options())
	if err != nil {
		return err
	}
	cores, err := cs.ParseCPUSet(os.Args[1])
	if err != nil {
		return err
	}
	if err := a.Create("e", cores, 0); err != nil {
		return err
	}
	if os.Getenv(cpusetsEnv) != "" {
		if err := a.Keep("e"); err != nil {
			return err
		}
	}
	if _, err := a.SetPolicy("e", "fifo-central", nil); err != nil {
		return err
	}
	var tids []int
	for _, text := range os.Args[2:] {
		tid, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		tids = append(tids, tid)
	}
	if err := a.Push("e", tids); err != nil {
		return err
	}
	fmt.Println("pushed")
	go func() {
		for s, err := a.Enclave("e"); err == nil && s.AgentOnline; s, err = a.Enclave("e") {
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Println("without a policy")
		_, err := a.SetPolicy("e", "sol", nil)
		fatal(err)
		fmt.Println("again")
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return a.Close()
}

// startActuator starts a process with an enclave "e" of some cores, and threads in it.
func startActuator(t *testing.T, cores cs.CPUSet, tids []int) (cmd *exec.Cmd, out *bufio.Scanner) {
	argv := append(role("actuator"), cores.String())
	for _, tid := range tids {
		argv = append(argv, strconv.Itoa(tid))
	}
	cmd, out = command(t, argv...)
	require.True(t, out.Scan())
	require.Equal(t, "pushed", out.Text())
	return cmd, out
}

func command(t *testing.T, argv ...string) (cmd *exec.Cmd, out *bufio.Scanner) {
	cmd, _, out = converse(t, nil, argv...)
	return cmd, out
}

// converse starts a program with further files, and talks to it until the test ends.
func converse(t testing.TB, files []*os.File, argv ...string) (cmd *exec.Cmd, in io.Writer, out *bufio.Scanner) {
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, files
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, stdin, bufio.NewScanner(stdout)
}

// startWorkers returns the numbers of threads at work.
func startWorkers(t *testing.T) (tids []int) {
	_, out := command(t, role("worker")...)
	for len(tids) < workers && out.Scan() {
		tid, err := strconv.Atoi(out.Text())
		require.NoError(t, err)
		tids = append(tids, tid)
	}
	require.Len(t, tids, workers)
	return tids
}

func originals(t *testing.T, tids []int) (all []original) {
	for _, tid := range tids {
		o, err := readOriginal(tid)
		require.NoError(t, err)
		all = append(all, o)
	}
	return all
}

// eventually waits for what has to come about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, 5*time.Millisecond, what)
}

// asBefore waits until threads have what they had.
func asBefore(t *testing.T, tids []int, want []original) {
	t.Helper()
	eventually(t, "threads are as they were", func() bool {
		for i, tid := range tids {
			if o, err := readOriginal(tid); err != nil || o != want[i] {
				return false
			}
		}
		return true
	})
}

// progress waits until each thread has used more CPU time.
func progress(t *testing.T, tids []int) {
	t.Helper()
	for _, tid := range tids {
		before, err := readStat(tid)
		require.NoError(t, err)
		eventually(t, fmt.Sprintf("thread %d goes on", tid), func() bool {
			now, err := readStat(tid)
			return err == nil && now.ticks > before.ticks
		})
	}
}

// oneCore is a set of one core that this process may use.
func oneCore(t testing.TB) cs.CPUSet {
	o, err := readOriginal(os.Getpid())
	require.NoError(t, err)
	var s cs.CPUSet
	s.Add(o.cpus.Next(0))
	return s
}

// needHost skips where threads cannot be watched for reasons that are not ours.
func needHost(t *testing.T) {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != initialPIDNamespace {
		t.Skip("this is a PID namespace of its own; BPF programs see the host's numbers")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF):", err)
	}
}

func newActuator(t *testing.T) *Actuator {
	needHost(t)
	a, err := New(options())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

func enclaveOf(t *testing.T, a *Actuator, name string) EnclaveStatus {
	s, err := a.Enclave(name)
	require.NoError(t, err)
	return s
}

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

func guardOf(a *Actuator) int {
	g, _ := a.now()
	return g.cmd.Process.Pid
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
