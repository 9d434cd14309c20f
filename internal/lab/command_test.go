package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestCommandRunsInTheNamespace(t *testing.T) {
	l := ForTest(t, Options{})
	out, err := l.Server.Command(t.Context(), "readlink", "/proc/self/ns/net").Output()
	require.NoError(t, err)
	require.Equal(t, l.Server.id, strings.TrimSpace(string(out)))
}

func TestCommandSeesItsOwnSysfs(t *testing.T) {
	l := ForTest(t, Options{})
	out, err := l.Client.Command(t.Context(), "ls", "/sys/class/net").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), ClientNIC)
	require.NotContains(t, string(out), ServerNIC)
	require.NoFileExists(t, "/sys/class/net/"+ClientNIC)
}

func TestMountsBelowSysfsAreKept(t *testing.T) {
	before, err := mountsBelow("/sys")
	require.NoError(t, err)
	l := ForTest(t, Options{})
	out, err := l.Client.Command(t.Context(), "cat", "/proc/self/mountinfo").Output()
	require.NoError(t, err)
	within, err := mountinfo.GetMountsFromReader(bytes.NewReader(out), nil)
	require.NoError(t, err)
	require.ElementsMatch(t, before, topmostBelow(within, "/sys"))
}

func TestCommandSeesMountsMadeBefore(t *testing.T) {
	l := ForTest(t, Options{})
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	out, err := l.Client.Command(t.Context(), "stat", "-f", "-c", "%T", dir).Output()
	require.NoError(t, err)
	require.Equal(t, "tmpfs", strings.TrimSpace(string(out)))
}

func TestCommandErrors(t *testing.T) {
	l := ForTest(t, Options{})
	require.ErrorIs(t, l.Client.Command(t.Context(), "no-such-program").Run(), exec.ErrNotFound)
	_, err := l.Client.Command(t.Context(), "sh", "-c", "echo broken >&2; exit 3").Output()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.Equal(t, "broken\n", string(exit.Stderr))
	out, err := l.Client.Command(t.Context(), "sh", "-c", "echo a; echo b >&2").CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "a\nb\n", string(out))
}

func TestCommandFollowsTheWorkingDirectory(t *testing.T) {
	l := ForTest(t, Options{})
	dir := t.TempDir()
	t.Chdir(dir)
	out, err := l.Client.Command(t.Context(), "pwd").Output()
	require.NoError(t, err)
	require.Equal(t, dir, strings.TrimSpace(string(out)))
}

// startShell starts a shell with a child, and returns both process numbers when
// both run.
func startShell(t *testing.T, ctx context.Context, n *Namespace) (c *Cmd, pids []int) {
	t.Helper()
	c = n.Command(ctx, "sh", "-c", "sleep 1000 & echo $$ $!; wait")
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return c, numbers(t, line)
}

func numbers(t *testing.T, line string) (ns []int) {
	t.Helper()
	for _, f := range strings.Fields(line) {
		n, err := strconv.Atoi(f)
		require.NoError(t, err)
		ns = append(ns, n)
	}
	return ns
}

// awaitDeath returns when the process has ended.
func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	require.NoError(t, err)
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000)
	}
	require.NoError(t, err)
	require.Equal(t, 1, n, "process %d is still alive", pid)
}

func TestCancelKillsTheGroup(t *testing.T) {
	l := ForTest(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	c, pids := startShell(t, ctx, l.Client)
	cancel()
	require.Error(t, c.Wait())
	for _, pid := range pids {
		awaitDeath(t, pid)
	}
}

func TestCloseKillsEverything(t *testing.T) {
	l, err := New(Options{})
	require.NoError(t, err)
	_, pids := startShell(t, t.Context(), l.Client)
	// One that left the group and session of what was started:
	c := l.Server.Command(t.Context(), "setsid", "sh", "-c", "echo $$; exec sleep 1000")
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	watched, err := l.watch()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Empty(t, l.leftovers(watched))
	for _, pid := range append(pids, numbers(t, line)...) {
		awaitDeath(t, pid)
	}
}

func TestLeftoversAreFound(t *testing.T) {
	l, err := New(Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	_, pids := startShell(t, t.Context(), l.Client)
	left := strings.Join(l.Client.leftovers(), "\n")
	for _, pid := range pids {
		require.Contains(t, left, fmt.Sprintf("(process %d)", pid))
	}
	require.Contains(t, left, "link "+ClientNIC)
	require.Contains(t, left, "name "+l.Client.Path())
	require.Contains(t, left, "thread ")
}
