package main

import (
	"bytes"
	"context"
	"debug/elf"
	bin "encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// timeout ends a process that hangs, and with it the test.
const timeout = 60 * time.Second

// process runs the binary to its end, as prepared by prepare.
func process(t *testing.T, prepare func(*exec.Cmd), args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	if prepare != nil {
		prepare(c)
	}
	return finish(t, c, c.Run)
}

// inLab is process in the server's namespace of a lab.
func inLab(t *testing.T, l *lab.Lab, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := l.Server.Command(ctx, binary, args...)
	return finish(t, c.Cmd, c.Run)
}

func finish(t *testing.T, c *exec.Cmd, run func() error) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// asNobody makes a command run without privileges.
func asNobody(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	c.Dir = "/"
}

// programs makes a directory of things that cannot be executed, and one that can.
func programs(t *testing.T) string {
	dir := t.TempDir()
	foreign := make([]byte, 4096)
	copy(foreign, elf.ELFMAG)
	foreign[elf.EI_CLASS], foreign[elf.EI_DATA], foreign[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	bin.LittleEndian.PutUint16(foreign[16:], uint16(elf.ET_EXEC))
	bin.LittleEndian.PutUint16(foreign[18:], uint16(elf.EM_RISCV))
	for name, data := range map[string]string{
		"text":    "no program\n",
		"empty":   "",
		"riscv":   string(foreign),
		"orphan":  "#!/nonexistent/interpreter\n",
		"script":  "#!/bin/sh\necho \"$0 $*\"\n",
		"nothing": "#!\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("#!/bin/sh\n"), 0o644))
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func TestProgramsThatCannotBeRun(t *testing.T) {
	dir := programs(t)
	for _, tc := range []struct {
		program string
		code    int
		want    string
	}{
		{"junction-no-such-program", 127, "junction-no-such-program: not found in PATH"},
		{dir + "/none", 127, dir + "/none: not found"},
		{dir + "/text/x", 127, dir + "/text/x: not found"},
		{dir + "/orphan", 127, dir + "/orphan: interpreter: /nonexistent/interpreter: not found"},
		{dir + "/text", 126, "neither an ELF program nor a script"},
		{dir + "/empty", 126, dir + "/empty: "},
		{dir + "/nothing", 126, dir + "/nothing: "},
		{dir + "/riscv", 126, "a program for another architecture (EM_RISCV)"},
		{dir + "/plain", 126, "permission denied"},
		{dir, 126, "is a directory"},
	} {
		stdout, stderr, code := process(t, nil, "--", tc.program)
		require.Equal(t, tc.code, code, "%s: %s", tc.program, stderr)
		require.Empty(t, stdout)
		requireError(t, stderr, tc.want)
	}
	stdout, stderr, code := process(t, nil, "--", dir+"/script", "a", "--", "-b")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, dir+"/script a -- -b\n", stdout)
}

func TestExitStatusOfPrograms(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143} {
		_, stderr, code := process(t, nil, "--", "sh", "-c", script)
		require.Equal(t, want, code, "%s: %s", script, stderr)
	}
}

func TestEnvironmentOfPrograms(t *testing.T) {
	stdout, stderr, code := process(t, func(c *exec.Cmd) { c.Env = []string{"PATH=/usr/bin:/bin", "A=old", "B=b"} },
		"--env", "A=new", "--env", "C=x=y", "--cwd", "/usr/", "--uid", "5", "--gid", "6", "--name", "box", "--",
		"sh", "-c", `echo "$A $B $C $(pwd) $(id -u) $(id -g) $(uname -n)"`)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "new b x=y /usr 5 6 box\n", stdout)
}

func TestWarningsOfConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c")
	require.NoError(t, os.WriteFile(file, []byte("runtime_priority lc\nhost_mtu 1500\n"), 0o600))
	stdout, stderr, code := process(t, nil, file, "--log", "json", "--", "echo", "hi")
	require.Equal(t, 0, code)
	require.Equal(t, "hi\n", stdout)
	var line struct{ Level, Msg string }
	require.NoError(t, json.Unmarshal([]byte(stderr), &line), stderr)
	require.Equal(t, "WARN", line.Level)
	require.Equal(t, "runtime_priority is not used: no uplink is shared without junctiond", line.Msg)
}

func TestUnusableDirectories(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	for _, flag := range []string{"--rw", "--rootfs"} {
		_, stderr, code := process(t, asNobody, flag, dir, "--", "true")
		require.Equal(t, 1, code)
		requireError(t, stderr, flag+" "+dir+": permission denied; ")
	}
	file := filepath.Join(dir, "config")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, stderr, code := process(t, asNobody, file, "--", "true")
	require.Equal(t, 1, code)
	requireError(t, stderr, file+": cannot open the configuration file: permission denied")
}

func TestSignalKillsTheProgram(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c := exec.CommandContext(ctx, binary, "--", "sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do sleep 1; done")
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	line := make([]byte, len("ready\n"))
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	require.NoError(t, c.Process.Signal(syscall.SIGUSR1))
	n, err := io.ReadFull(out, line[:len("usr1\n")])
	require.NoError(t, err)
	require.Equal(t, "usr1\n", string(line[:n]))
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.Error(t, c.Wait())
	require.Equal(t, 143, c.ProcessState.ExitCode())
}
