package e2e

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// readyTimeout is how long a program may take to get ready; a JVM on a busy machine takes seconds.
	readyTimeout = 60 * time.Second
	// exitTimeout is how long an instance may take to end.
	exitTimeout = 60 * time.Second
)

// starter is an exec.Cmd or a lab.Cmd.
type starter interface {
	Start() error
	Wait() error
}

// instance is a running junction_run.
type instance struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan struct{} // closed when code is set
	code           int           // of the shell's kind; read it after ended
}

// args returns junction_run's arguments.
func args(flags []string, program []string) []string {
	return slices.Concat(flags, []string{"--"}, program)
}

// isolated are the flags of an instance without network.
func isolated(engine string, flags ...string) []string {
	return append([]string{"--engine", engine, "--mode", "none"}, flags...)
}

// command returns a junction_run command on the host; run starts it.
func command(flags []string, program ...string) *exec.Cmd {
	c := exec.Command(junctionRun, args(flags, program)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

// start starts junction_run on the host, without a NIC.
func start(t testing.TB, flags []string, program ...string) *instance {
	c := command(flags, program...)
	return launch(t, c, c)
}

// launch starts cmd through s. Standard output and error are collected unless
// the command has its own.
func launch(t testing.TB, s starter, cmd *exec.Cmd) *instance {
	t.Helper()
	i := &instance{t: t, cmd: cmd, stdout: newOutput(), stderr: newOutput(), ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = i.stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = i.stderr
	}
	cmd.WaitDelay = 5 * time.Second
	require.NoError(t, s.Start())
	go func() {
		err := s.Wait()
		i.code = shellCode(cmd, err)
		close(i.ended)
	}()
	t.Cleanup(i.cleanUp)
	return i
}

// shellCode is what a shell would report in $?, or -1.
func shellCode(cmd *exec.Cmd, err error) int {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return -1
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

func (i *instance) cleanUp() {
	i.kill()
	if i.t.Failed() {
		i.t.Logf("%s\nexit code %d\n--- standard output\n%s\n--- standard error\n%s",
			strings.Join(i.cmd.Args, " "), i.code, tail(i.stdout.String()), tail(i.stderr.String()))
	}
}

// tail keeps logs of failures readable.
func tail(s string) string {
	const most = 8 << 10
	if len(s) > most {
		return "[...]" + s[len(s)-most:]
	}
	return s
}

// kill ends the instance with SIGKILL, if it still runs, and waits.
func (i *instance) kill() {
	if i.running() {
		_ = i.cmd.Process.Kill()
	}
	<-i.ended
}

func (i *instance) running() bool {
	select {
	case <-i.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal to junction_run.
func (i *instance) signal(sig syscall.Signal) {
	i.t.Helper()
	require.NoError(i.t, i.cmd.Process.Signal(sig))
}

// await waits until standard output contains text.
func (i *instance) await(text string) {
	i.t.Helper()
	i.awaitCond(i.stdout, contains(text), "output "+text)
}

func (i *instance) awaitCond(o *output, ok func(string) bool, what string) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	require.NoErrorf(i.t, o.wait(ctx, i.ended, ok), "waiting for %s", what)
}

// exit waits for the end and returns the exit code.
func (i *instance) exit() int {
	i.t.Helper()
	select {
	case <-i.ended:
	case <-time.After(exitTimeout):
		i.t.Fatalf("%s did not end within %v", i.cmd.Args[0], exitTimeout)
	}
	return i.code
}

// terminate sends SIGTERM and expects the exit code.
func (i *instance) terminate(code int) {
	i.t.Helper()
	require.True(i.t, i.running(), "the instance ended before it was told to")
	i.signal(syscall.SIGTERM)
	require.Equal(i.t, code, i.exit(), "exit code after SIGTERM")
}

// run runs junction_run to its end on the host, without a NIC, and returns
// standard output, standard error and the exit code.
func run(t testing.TB, flags []string, program ...string) (stdout, stderr string, code int) {
	t.Helper()
	i := start(t, flags, program...)
	code = i.exit()
	return i.stdout.String(), i.stderr.String(), code
}

// mustRun is run for programs that succeed; it returns standard output.
func mustRun(t testing.TB, flags []string, program ...string) string {
	t.Helper()
	stdout, _, code := run(t, flags, program...)
	require.Zero(t, code, "exit code")
	return stdout
}
