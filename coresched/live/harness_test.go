package live

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/plugin"
	"junction/coresched/policies"
)

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

func options() Options {
	return Options{Guard: role("guard"), Policy: role("policy"), Cpusets: os.Getenv(cpusetsEnv), State: os.Getenv(stateEnv)}
}

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

func guardOf(a *Actuator) int {
	g, _ := a.now()
	return g.cmd.Process.Pid
}
