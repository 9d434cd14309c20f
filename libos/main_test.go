package libos

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"junction/libos/netstack"
	"junction/libos/shortcut"
)

// A process boots one instance, so each test boots its own in a child: this
// test binary again, told by the environment to be one.
const childEnv = "JUNCTION_LIBOS_TEST_OPTIONS"

// countEnv makes it print how many system calls there were, and how many of
// them went the short way.
const countEnv = "JUNCTION_LIBOS_TEST_COUNT=1"

func TestMain(m *testing.M) {
	if spec, ok := os.LookupEnv(childEnv); ok {
		os.Exit(runChild(spec))
	}
	if times, ok := os.LookupEnv(askEnv); ok {
		os.Exit(askTime(times))
	}
	os.Exit(m.Run())
}

// runChild boots the instance that spec (Options as JSON) describes.
func runChild(spec string) int {
	var opts Options
	if err := json.Unmarshal([]byte(spec), &opts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	network, err := netstack.New(netstack.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	opts.Network = func() (*stack.Stack, error) { return network.Stack(), nil }
	opts.Stdio = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	if opts.Strace {
		opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	inst, err := Boot(opts)
	switch {
	case errors.Is(err, ErrNotFound):
		fmt.Fprintln(os.Stderr, err)
		return 127
	case errors.Is(err, ErrNotExecutable):
		fmt.Fprintln(os.Stderr, err)
		return 126
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := inst.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := inst.Wait()
	if slices.Contains(os.Environ(), countEnv) {
		fmt.Fprintln(os.Stderr, "system calls:", inst.Stats().Syscalls)
		fmt.Fprintln(os.Stderr, "served:", inst.k.Platform.(*shortcut.Platform).Stats().Served)
	}
	if err := inst.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status.ShellCode()
}

// child returns the command that runs an instance with opts.
func child(t *testing.T, opts Options) *exec.Cmd {
	t.Helper()
	if opts.Env == nil {
		opts.Env = []string{"PATH=/usr/bin:/bin"}
	}
	spec, err := json.Marshal(opts)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{childEnv + "=" + string(spec)}
	return cmd
}

// sh runs a shell script in an instance and returns what it printed.
func sh(t *testing.T, opts Options, script string) string {
	t.Helper()
	opts.Argv = []string{"sh", "-c", script}
	out, err := child(t, opts).CombinedOutput()
	require.NoError(t, err, "output:\n%s", out)
	return string(out)
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0":              0,
		"exit 3":              3,
		"kill -9 $$":          128 + 9,
		"kill $$":             128 + 15,
		"sleep 1000 & exit 4": 4, // what is left ends with the program
	} {
		t.Run(script, func(t *testing.T) {
			cmd := child(t, Options{Argv: []string{"sh", "-c", script}})
			cmd.Run()
			require.Equal(t, want, cmd.ProcessState.ExitCode())
		})
	}
}

// TestOpenNetlink: `ip` ends without closing its netlink socket, which only a task
// of the Sentry can.
func TestOpenNetlink(t *testing.T) {
	out, err := child(t, Options{Argv: []string{"ip", "-o", "link"}}).CombinedOutput()
	require.NoError(t, err, "output:\n%s", out)
	require.Contains(t, string(out), "lo:")
}

func TestProgramErrors(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0755))
	write := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(p, []byte(content), mode))
		return p
	}
	self, err := os.ReadFile("/bin/true")
	require.NoError(t, err)
	foreign := []byte(string(self))
	foreign[18], foreign[19] = 0xb7, 0 // EM_AARCH64
	if machines["arm64"] == machines["amd64"] {
		t.Fatal("machines are wrong")
	}
	for _, tc := range []struct {
		program string
		code    int
		message string
	}{
		{"no-such-program", 127, "not found in PATH"},
		{"/no/such/program", 127, "/no/such/program: not found"},
		{"./relative", 127, "not found"},
		{"/etc", 126, "is a directory"},
		{"/etc/passwd", 126, "permission denied"},
		{write("text", "hello\n", 0755), 126, "neither an ELF program nor a script"},
		{write("empty", "", 0755), 126, "empty or unreadable"},
		{write("short", "\x7fELF", 0755), 126, "truncated ELF header"},
		{write("foreign", string(foreign), 0755), 126, "another architecture (EM_AARCH64)"},
		{write("script", "#!/no/such/interpreter -x\n", 0755), 127, "interpreter: /no/such/interpreter: not found"},
		{write("loop", "#!"+filepath.Join(dir, "loop")+"\n", 0755), 126, "too many interpreters"},
	} {
		t.Run(tc.program, func(t *testing.T) {
			cmd := child(t, Options{Argv: []string{tc.program}})
			out, _ := cmd.CombinedOutput()
			require.Contains(t, string(out), tc.message)
			require.Equal(t, tc.code, cmd.ProcessState.ExitCode())
			require.Equal(t, 1, strings.Count(string(out), "\n"), "one line: %s", out)
		})
	}
}

func TestWorkingDirectory(t *testing.T) {
	require.Equal(t, "/usr/share\n", sh(t, Options{Cwd: "/usr/share"}, "pwd"))
	for dir, message := range map[string]string{"/no/such": "no such file", "/etc/passwd": "not a directory"} {
		cmd := child(t, Options{Argv: []string{"true"}, Cwd: dir})
		out, _ := cmd.CombinedOutput()
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Contains(t, string(out), message)
		require.Contains(t, string(out), "--cwd")
	}
}

func TestFileTree(t *testing.T) {
	host := t.TempDir()
	require.NoError(t, os.Chmod(host, 0777))
	require.NoError(t, os.WriteFile(filepath.Join(host, "lower"), []byte("host"), 0644))
	cwd := Options{Cwd: host}

	t.Run("changes stay in the overlay", func(t *testing.T) {
		require.Equal(t, "new\n", sh(t, cwd, "echo new > lower; echo x > added; cat lower"))
		content, err := os.ReadFile(filepath.Join(host, "lower"))
		require.NoError(t, err)
		require.Equal(t, "host", string(content))
		require.NoFileExists(t, filepath.Join(host, "added"))
	})
	t.Run("rw is written through", func(t *testing.T) {
		opts := Options{Cwd: host, ReadWrite: []string{host}}
		sh(t, opts, "echo through > written; mkdir d; mv written d/; chmod 640 d/written")
		content, err := os.ReadFile(filepath.Join(host, "d/written"))
		require.NoError(t, err)
		require.Equal(t, "through\n", string(content))
		info, err := os.Stat(filepath.Join(host, "d/written"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0640), info.Mode())
	})
	t.Run("system file systems", func(t *testing.T) {
		out := sh(t, Options{}, `
			test -r /proc/self/status && test -d /sys/class && test -c /dev/null &&
			echo a > /tmp/t && echo b > /dev/shm/s && cat /tmp/t /dev/shm/s && ls /dev/pts/ptmx`)
		require.Equal(t, "a\nb\n/dev/pts/ptmx\n", out)
	})
	t.Run("missing rw directory", func(t *testing.T) {
		cmd := child(t, Options{Argv: []string{"true"}, ReadWrite: []string{"/no/such/dir"}})
		out, _ := cmd.CombinedOutput()
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Contains(t, string(out), "/no/such/dir")
	})
}

func TestCredentials(t *testing.T) {
	require.Equal(t, "0:0\n", sh(t, Options{}, "echo $(id -u):$(id -g)"))
	out := sh(t, Options{UID: 1234, GID: 555}, "echo $(id -u):$(id -g); cat /etc/shadow 2>&1 || true; grep CapEff /proc/self/status")
	require.Contains(t, out, "1234:555\n")
	require.Contains(t, out, "Permission denied")
	require.Contains(t, out, "CapEff:\t0000000000000000")
}

// TestStdioOffset: a redirected output is one file with one offset, before,
// in and after the instance.
func TestStdioOffset(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer out.Close()
	fmt.Fprintln(out, "before")
	cmd := child(t, Options{Argv: []string{"sh", "-c", "echo one; echo two >&2; echo three"}})
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Run())
	fmt.Fprintln(out, "after")
	content, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	require.Equal(t, "before\none\ntwo\nthree\nafter\n", string(content))
}

// TestSharedStderr: the libOS's log and the program's output in one file do not
// overwrite each other.
func TestSharedStderr(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer out.Close()
	cmd := child(t, Options{Strace: true, Argv: []string{"sh", "-c", "for i in 1 2 3 4 5; do echo line-$i-end; done; /bin/echo last-end >&2"}})
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Run())
	fmt.Fprintln(out, "after")
	content, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	for _, line := range []string{"line-1-end\n", "line-5-end\n", "last-end\n", "\nafter\n"} {
		require.Contains(t, string(content), line)
	}
	require.NotContains(t, string(content), "\x00")
	for _, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		require.Regexp(t, `^(time=|line-\d-end$|last-end$|after$)`, line)
	}
	flags, err := unix.FcntlInt(out.Fd(), unix.F_GETFL, 0)
	require.NoError(t, err)
	require.Zero(t, flags&unix.O_APPEND)
}

func TestPipes(t *testing.T) {
	cmd := child(t, Options{Argv: []string{"sh", "-c", "(echo b; echo a) & cat | sort; wait"}})
	cmd.Stdin = strings.NewReader("2\n1\n")
	out, err := cmd.Output()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"1", "2", "a", "b"}, strings.Fields(string(out)))
}

// TestMachine: a program sees the processors and the memory of the machine, and
// the processors that it is given.
func TestMachine(t *testing.T) {
	var info unix.Sysinfo_t
	require.NoError(t, unix.Sysinfo(&info))
	kib := uint64(info.Totalram) * uint64(info.Unit) / 1024
	out := sh(t, Options{Name: "somehost", Kthreads: 1}, "awk '/MemTotal/{print $2}' /proc/meminfo; nproc; hostname")
	require.Equal(t, fmt.Sprintf("%d\n1\nsomehost\n", kib), out)
}

func TestTracing(t *testing.T) {
	require.Contains(t, sh(t, Options{Strace: true}, "cat /etc/hostname"), "/etc/hostname")
	cmd := child(t, Options{Argv: []string{"true"}})
	cmd.Env = append(cmd.Env, countEnv)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err)
	require.Regexp(t, `system calls: [1-9]`, string(out))
}

// TestSIGPIPE: a writer whose reader has gone is killed, be it a host pipe, a
// stream socket or a pipe inside; MSG_NOSIGNAL and datagrams are spared.
func TestSIGPIPE(t *testing.T) {
	t.Run("host pipe", func(t *testing.T) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		r.Close()
		cmd := child(t, Options{Argv: []string{"yes"}})
		cmd.Stdout = w
		cmd.Run()
		w.Close()
		require.Equal(t, 128+13, cmd.ProcessState.ExitCode())
	})
	t.Run("inside", func(t *testing.T) {
		require.Equal(t, "y\n", sh(t, Options{}, "yes | head -1"))
	})
	t.Run("sockets", func(t *testing.T) {
		out := sh(t, Options{}, `exec /usr/bin/python3 - <<'END'
import os, signal, socket
seen = []
signal.signal(signal.SIGPIPE, lambda *_: seen.append(1))
def broken(kind, flags):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    b.close()
    del seen[:]
    try: a.send(b"x", flags)
    except (BrokenPipeError, ConnectionRefusedError): os.getpid()
    return len(seen)
print(broken(socket.SOCK_STREAM, 0), broken(socket.SOCK_STREAM, socket.MSG_NOSIGNAL), broken(socket.SOCK_DGRAM, 0))
END`)
		require.Equal(t, "1 0 0\n", out)
	})
}
