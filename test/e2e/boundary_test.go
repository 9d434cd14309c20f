package e2e

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
)

// left is what junction_run's caller has open; it is not for the instance.
const left = "/proc/1"

// TestBoundary looks, from the host, at every thread of a running instance, at
// every process that belongs to it, and at every file it holds.
func TestBoundary(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		dir := workDir(t)
		open, err := os.Open(left)
		require.NoError(t, err)
		defer open.Close()
		// What forks under inproc, and may not move, is on systrap.
		c := r.command([]string{"--rw", dir, "--moves", "never"}, "sh", "-c", "(echo ready; exec sleep 1000); :")
		c.ExtraFiles = []*os.File{open}
		i := launch(t, c, c.Cmd)
		i.await("ready")
		_, err = r.dial(netip.AddrPortFrom(addr4, 9)) // packets pass
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		processes := descendants(t, i.cmd.Process.Pid)
		require.Greater(t, len(processes), 1)
		for _, pid := range processes {
			requireConfined(t, pid)
		}
		requireFiles(t, i.cmd.Process.Pid, dir)
		requireTree(t, i.cmd.Process.Pid, dir)
		i.terminate(143)
	})
}

// requireConfined expects of all threads of a process: no capability, no way
// to get one, and a seccomp filter.
func requireConfined(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	require.NoError(t, err)
	require.NotEmpty(t, threads)
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if os.IsNotExist(err) {
			continue // it has ended meanwhile
		}
		require.NoError(t, err)
		for _, line := range []string{`CapInh:\t0+`, `CapPrm:\t0+`, `CapEff:\t0+`, `CapBnd:\t0+`, `CapAmb:\t0+`, `NoNewPrivs:\t1`, `Seccomp:\t2`} {
			require.Regexp(t, regexp.MustCompile(`(?m)^`+line+`$`), string(status), thread)
		}
	}
}

// requireTree expects that a process can reach, by whatever path, only the host's
// directories of its instance, and write only to the directory rw.
func requireTree(t *testing.T, pid int, rw string) {
	t.Helper()
	root := fmt.Sprintf("/proc/%d/root", pid)
	names, err := filepath.Glob(root + "/*")
	require.NoError(t, err)
	require.Equal(t, []string{root + "/proc", root + "/root", root + "/rw"}, names)
	require.NoError(t, os.WriteFile(root+"/rw/0/f", []byte("x"), 0o644))
	requireContent(t, filepath.Join(rw, "f"), "x")
	// This test is more privileged than the instance, and cannot either.
	for _, path := range []string{"/f", "/root/f", "/root" + rw + "/f", "/root/usr/f", "/proc/self/comm"} {
		require.ErrorIs(t, os.WriteFile(root+path, nil, 0o644), syscall.EROFS, path)
	}
	for _, dir := range []string{"/root/proc", "/root/sys"} {
		entries, err := os.ReadDir(root + dir)
		require.NoError(t, err)
		require.Empty(t, entries, dir)
	}
}

// descendants lists a process and those below it.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	all := []int{pid}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended meanwhile
		}
		for _, child := range strings.Fields(string(data)) {
			var n int
			_, err := fmt.Sscan(child, &n)
			require.NoError(t, err)
			all = append(all, descendants(t, n)...)
		}
	}
	return all
}

// harmless are the kinds of files without a name that an instance holds.
var harmless = regexp.MustCompile(`^(socket:\[\d+\]|pipe:\[\d+\]|/memfd:[a-z_-]+ \(deleted\)|/dev/null|/dev/net/tun|/tmp/junction-tap-\d+/tap \(deleted\)` +
	`|anon_inode:(\[eventpoll\]|\[eventfd\]|bpf-map|bpf-prog|\[?bpf_link\]?|seccomp notify)|net:\[\d+\])$`)

// requireFiles expects that a process holds no file but those of the instance:
// of host files those that programs have open, read-only, and what is below rw.
func requireFiles(t *testing.T, pid int, rw string) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	require.NoError(t, err)
	require.Greater(t, len(fds), 3)
	var odd []string
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || harmless.MatchString(target) || strings.HasPrefix(target, rw) {
			continue
		}
		st, err := os.Lstat(fd) // of a link to an open file, the mode is the file's
		if err == nil && st.Mode()&0o200 == 0 && target != left {
			continue
		}
		odd = append(odd, target)
	}
	require.Empty(t, odd, "files that can be written, or are none of the instance's")
}

// TestFewerQueues expects to be told what an instance without privileges could
// not give back to the NIC, and how to.
func TestFewerQueues(t *testing.T) {
	r := newRig(t, variant{engine: engines[0], driver: "afxdp"}, lab.Options{Queues: 2})
	// A veth cannot receive on fewer queues than its peer sends on.
	set := r.Client.Command(t.Context(), need(t, "ethtool"), "-L", lab.ClientNIC, "tx", "1")
	out, err := set.CombinedOutput()
	require.NoError(t, err, string(out))
	flags := r.flags("--nic", lab.ServerNIC+":1")
	c := r.Server.Command(t.Context(), junctionRun, args(flags, []string{"true"})...)
	i := launch(t, c, c.Cmd)
	require.Zero(t, i.exit())
	advice := regexp.MustCompile(`ethtool (-L ` + lab.ServerNIC + ` .+?)"`).FindStringSubmatch(i.stderr.String())
	require.NotNil(t, advice, i.stderr.String())
	set = r.Server.Command(t.Context(), need(t, "ethtool"), strings.Fields(advice[1])...)
	out, err = set.CombinedOutput()
	require.NoError(t, err, "%s: %s", advice[0], out)
}

// TestHostCalls runs a program that uses the libOS in many ways, with standard
// streams of each kind. A host call that the boundary forbids, but the libOS
// makes, ends it.
func TestHostCalls(t *testing.T) {
	python := need(t, "python3")
	program, err := os.ReadFile("testdata/boundary/hostcalls.py")
	require.NoError(t, err)
	kinds := map[string]func(t *testing.T, c *exec.Cmd) (output func() string){
		"file": func(t *testing.T, c *exec.Cmd) func() string {
			f, err := os.OpenFile(filepath.Join(workDir(t), "io"), os.O_RDWR|os.O_CREATE, 0o644)
			require.NoError(t, err)
			t.Cleanup(func() { f.Close() })
			c.Stdin, c.Stdout = f, f
			return func() string { data, _ := os.ReadFile(f.Name()); return string(data) }
		},
		"pipe": func(t *testing.T, c *exec.Cmd) func() string {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			t.Cleanup(func() { r.Close(); w.Close() })
			c.Stdin = r
			out := newOutput()
			c.Stdout = out
			return out.String
		},
		"socket": func(t *testing.T, c *exec.Cmd) func() string { return onSocket(t, c) },
	}
	for kind, attach := range kinds {
		t.Run(kind, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, engine string) {
				dir := workDir(t)
				c := command(isolated(engine, "--boundary", "trap", "--rw", dir), python, "-c", string(program), dir)
				output := attach(t, c)
				i := launch(t, c, c)
				require.Zero(t, i.exit())
				require.Contains(t, output(), "\ndone\n")
			})
		})
	}
}

// onSocket makes one end of a socket pair standard input and output, and
// collects what comes out of the other.
func onSocket(t *testing.T, c *exec.Cmd) func() string {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	c.Stdin, c.Stdout = theirs, theirs
	var out strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(&out, ours)
	}()
	t.Cleanup(func() { ours.Close() })
	return func() string {
		theirs.Close() // the instance's own end closed when it ended
		<-done
		return out.String()
	}
}
