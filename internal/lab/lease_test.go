package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ownerEnv makes the test binary an owner of a lab that waits to be killed.
const ownerEnv = "JUNCTION_LAB_TEST_OWNER"

// owner makes a lab with two programs, one that dies with it and one that only
// the sweep ends, says what they are called, and waits.
func owner() {
	l, err := New(Options{Bridge: true})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	child := l.Client.Command(context.Background(), "sleep", "1000")
	orphan := l.Server.Command(context.Background(), "sleep", "1000")
	orphan.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no Pdeathsig
	if err := errors.Join(child.Start(), orphan.Start()); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(l.Name(), child.Process.Pid, orphan.Process.Pid)
	select {}
}

// startOwner starts one in another process and returns its lab and its programs.
func startOwner(t *testing.T) (c *exec.Cmd, lab string, child, orphan int) {
	t.Helper()
	c = exec.Command(os.Args[0])
	c.Env = append(os.Environ(), ownerEnv+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	lab, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
	require.True(t, ok, line)
	pids := numbers(t, rest)
	require.Len(t, pids, 2)
	return c, lab, pids[0], pids[1]
}

func traces(t *testing.T, lab string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(netnsDir, lab+"-*"))
	require.NoError(t, err)
	leases, err := filepath.Glob(leasePath(lab))
	require.NoError(t, err)
	return append(names, leases...)
}

func TestKilledOwnersLabIsSwept(t *testing.T) {
	c, lab, child, orphan := startOwner(t)
	require.NoError(t, Sweep())
	require.Len(t, traces(t, lab), 3, "the lab of a living owner was swept")
	require.NoError(t, syscall.Kill(child, 0))

	require.NoError(t, c.Process.Kill())
	_ = c.Wait() // killed
	awaitDeath(t, child)
	require.Len(t, traces(t, lab), 3)
	require.NoError(t, syscall.Kill(orphan, 0))

	ForTest(t, Options{}) // sweeps first
	require.Empty(t, traces(t, lab))
	awaitDeath(t, orphan)
}

func TestSweepTakesOrdinaryFiles(t *testing.T) {
	const lab = "jx0-0" // as left by a reboot
	require.NoError(t, Sweep())
	require.NoError(t, os.MkdirAll(netnsDir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(netnsDir, lab+"-client"), nil, 0o444))
	require.NoError(t, os.WriteFile(leasePath(lab), nil, 0o600))
	require.NoError(t, Sweep())
	require.Empty(t, traces(t, lab))
}

func TestFailedNewLeavesNothing(t *testing.T) {
	// The kernel refuses the second address; all the rest has been made by then.
	_, err := New(Options{ClientAddrs: []netip.Prefix{ClientAddr4, ClientAddr4}})
	require.ErrorContains(t, err, "file exists")
	require.Empty(t, traces(t, fmt.Sprintf("%s%d-%d", namePrefix, os.Getpid(), sequence.Load())))
}

// TestNamesHiddenByAMountAreRemoved does what `ip netns` does to the folder of
// names, in a mount namespace of its own.
func TestNamesHiddenByAMountAreRemoved(t *testing.T) {
	name := filepath.Join(t.TempDir(), "name")
	dir := filepath.Dir(name)
	th, err := newThread(func() error {
		if err := ownMounts(unix.MS_PRIVATE); err != nil {
			return err
		}
		if err := nameNamespace(name); err != nil {
			return err
		}
		for range 2 {
			if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
				return err
			}
		}
		return removeName(name)
	})
	require.NoError(t, err)
	th.stop()
	require.NoFileExists(t, name)
}
