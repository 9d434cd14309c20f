package live

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	cs "junction/coresched"
	"junction/coresched/instance"
)

// needGroups skips where there are no CPU cgroups of version 1.
func needGroups(t *testing.T) *groups {
	g, err := openGroups()
	if errors.Is(err, errNoGroups) {
		b, _ := os.ReadFile("/proc/self/cgroup")
		if _, _, ok := parseGroup(b); !ok {
			t.Skip(err)
		}
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.close()) })
	return g
}

func groupOf(t *testing.T, pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	require.NoError(t, err)
	_, group, ok := parseGroup(b)
	require.True(t, ok, "%s", b)
	return group
}

// isIdle tells whether a group exists and is idle.
func (g *groups) isIdle(group string) bool {
	b, err := os.ReadFile(g.file(group, "cpu.idle"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// gone waits until a process is in home and its former group is no more.
func (g *groups) gone(t *testing.T, group, home string, pid int) {
	t.Helper()
	eventually(t, "the process is where it was", func() bool { return groupOf(t, pid) == home })
	eventually(t, "nothing is left", func() bool {
		_, err := os.Stat(g.file(group, ""))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestParseGroup(t *testing.T) {
	for text, want := range map[string]string{
		"3:cpuset:/\n1:cpu:/\n0::/x\n":       "/",
		"4:cpu,cpuacct:/a/b:c\n":             "/a/b:c",
		"4:cpuacct,cpu:/a\n9:name=cpu:/b\n":  "/a",
		"0::/system.slice\n":                 "",
		"4:cpu:/../out\n":                    "",
		"4:cpu:relative\n":                   "",
		"4:cpu:/a/../b\n":                    "",
		"":                                   "",
		"4:cpuset:/cpu\n5:name=systemd:/cpu": "",
	} {
		_, group, ok := parseGroup([]byte(text))
		require.Equal(t, want != "", ok, text)
		if ok {
			require.Equal(t, want, group, text)
		}
	}
}

// Names of our groups are read as they are made, and of others none is ours.
func TestGroupNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pid, started := rapid.IntRange(1, 1<<22).Draw(t, "pid"), rapid.Uint64().Draw(t, "started")
		gotPID, gotStarted, ok := isOurs(fmt.Sprintf("%s%d-%d-%d", groupPrefix, pid, started, rapid.Uint64().Draw(t, "unique")))
		if !ok || gotPID != pid || gotStarted != started {
			t.Fatal(gotPID, gotStarted, ok)
		}
	})
	for _, name := range []string{"", "junction-idle-", "junction-idle-1-2", "junction-idle-0-2-3", "junction-idle--1-2-3", "junction-idle-1-x-3", "xjunction-idle-1-2-3"} {
		_, _, ok := isOurs(name)
		require.False(t, ok, name)
	}
}

func FuzzParseGroup(f *testing.F) {
	f.Add([]byte("4:cpu,cpuacct:/a/b:c\n0::/\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if controllers, group, ok := parseGroup(b); ok && (!slices.Contains(controllers, "cpu") || path.Clean(group) != group || group[0] != '/') {
			t.Fatalf("%q: %q of %q", b, group, controllers)
		}
	})
}

// TestIdleGroup: a best-effort instance lies in a group that is idle while there is
// a policy, and is where it was when it has left.
func TestIdleGroup(t *testing.T) {
	g := needGroups(t)
	a, cores := machineWith(t)
	be, lc := startInstance(t), startInstance(t)
	home := groupOf(t, be.pid)
	require.NoError(t, be.join(t, a, "e", InstanceOptions{Name: "be", Kthreads: 1, Class: cs.BestEffort}))
	require.NoError(t, lc.join(t, a, "e", InstanceOptions{Name: "lc", Kthreads: 1, Guaranteed: 1}))
	group := groupOf(t, be.pid)
	require.Equal(t, home, path.Dir(group))
	require.Equal(t, group, a.Instances()[0].Group)
	require.True(t, g.isIdle(group))
	require.Equal(t, home, groupOf(t, lc.pid))

	s, err := a.Enclave("e")
	require.NoError(t, err)
	require.NoError(t, unix.Kill(s.PID, unix.SIGKILL))
	eventually(t, "without a policy it is not idle", func() bool { return !g.isIdle(group) })
	be.scheduled(t, unix.SCHED_NORMAL, cores)
	_, err = a.SetPolicy("e", "ias", nil)
	require.NoError(t, err)
	require.True(t, g.isIdle(group))

	// It leaves, and comes again at once.
	be.leave(t)
	eventually(t, "it has left", func() bool { return len(a.Instances()) == 1 })
	require.NoError(t, be.join(t, a, "e", InstanceOptions{Name: "be", Kthreads: 1, Class: cs.BestEffort}))
	again := groupOf(t, be.pid)
	require.Equal(t, home, path.Dir(again))
	require.NotEqual(t, group, again)
	require.True(t, g.isIdle(again))
	require.NoError(t, a.Destroy("e"))
	g.gone(t, again, home, be.pid)
	g.gone(t, group, home, be.pid)
	<-be.ended
}

// TestCloseLeavesGroups: an actuator that ends does not wait until a group can be
// removed; its guard does.
func TestCloseLeavesGroups(t *testing.T) {
	g := needGroups(t)
	a, _ := machineWith(t)
	be := startInstance(t)
	home := groupOf(t, be.pid)
	require.NoError(t, be.join(t, a, "e", InstanceOptions{Name: "be", Kthreads: 1, Class: cs.BestEffort}))
	group := groupOf(t, be.pid)
	busy := path.Join(group, "busy") // with a group in it, it is
	require.NoError(t, os.Mkdir(g.file(busy, ""), 0o755))
	t.Cleanup(func() { _ = os.Remove(g.file(busy, "")) })
	guard, _ := a.now()
	require.NoError(t, a.Close())
	require.False(t, guard.gone())
	require.False(t, g.isIdle(group))
	require.Equal(t, home, groupOf(t, be.pid))
	require.NoError(t, os.Remove(g.file(busy, "")))
	g.gone(t, group, home, be.pid)
	<-guard.ended
	require.NoError(t, guard.err)
	<-be.ended
}

// TestIdleGroupOfTheDead: nothing is left of an instance that is killed.
func TestIdleGroupOfTheDead(t *testing.T) {
	g := needGroups(t)
	a, _ := machineWith(t)
	be := startInstance(t)
	require.NoError(t, be.join(t, a, "e", InstanceOptions{Name: "be", Kthreads: 1, Class: cs.BestEffort}))
	group := groupOf(t, be.pid)
	require.True(t, g.isIdle(group))
	require.NoError(t, unix.Kill(be.pid, unix.SIGKILL))
	be.leave(t)
	g.gone(t, group, groupOf(t, os.Getpid()), os.Getpid())
}

// share is an actuator to be killed, with the instance of its argument, which is
// best effort.
func share() error {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	o, err := readOriginal(pid)
	if err != nil {
		return err
	}
	a, err := New(options())
	if err != nil {
		return err
	}
	if err := a.Create("e", o.cpus, 0); err != nil {
		return err
	}
	if _, err := a.SetPolicy("e", "ias", nil); err != nil {
		return err
	}
	g, _, err := instance.NewGiver(1)
	if err != nil {
		return err
	}
	if err := a.Join("e", g, InstanceOptions{Name: "be", PID: pid, Kthreads: 1, Class: cs.BestEffort}); err != nil {
		return err
	}
	fmt.Println("joined")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return a.Close()
}

// TestGuardEndsGroups: when the actuator is killed its guard has best effort be
// where it was, as it was.
func TestGuardEndsGroups(t *testing.T) {
	g := needGroups(t)
	needHost(t)
	be := startInstance(t)
	o, err := readOriginal(be.pid)
	require.NoError(t, err)
	home := groupOf(t, be.pid)
	cmd, out := command(t, append(role("sharer"), strconv.Itoa(be.pid))...)
	require.True(t, out.Scan())
	group := groupOf(t, be.pid)
	require.NotEqual(t, home, group)
	require.True(t, g.isIdle(group))
	require.NoError(t, cmd.Process.Kill())
	g.gone(t, group, home, be.pid)
	be.scheduled(t, o.policy, o.cpus)
}

// TestSweep: what an actuator and a guard that were both killed left behind goes,
// and what a living one has stays. All lies in a group of this process, into which
// nobody else looks.
func TestSweep(t *testing.T) {
	g := needGroups(t)
	f := startInstance(t)
	home := groupOf(t, f.pid)
	s, err := readStat(f.pid)
	require.NoError(t, err)
	top, err := g.make(f.pid, 1<<40)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.end(top)) })
	living := path.Join(top, path.Base(top))
	require.NoError(t, os.Mkdir(g.file(living, ""), 0o755))
	t.Cleanup(func() { require.NoError(t, g.end(living)) })
	dead := path.Join(top, fmt.Sprintf("%s%d-%d-%d", groupPrefix, f.pid, s.started+1, 0))
	require.NoError(t, os.Mkdir(g.file(dead, ""), 0o755))
	require.NoError(t, g.take(dead, f.pid, s.started))
	require.NoError(t, g.setIdle(dead, true))
	require.Equal(t, dead, groupOf(t, f.pid))
	require.NoError(t, g.sweep("/"))
	require.DirExists(t, g.file(dead, ""), "it is the living's")
	require.NoError(t, g.sweep(top))
	g.gone(t, dead, top, f.pid)
	require.DirExists(t, g.file(living, ""))
	require.NoError(t, g.end(living))
	require.NoError(t, g.end(top))
	g.gone(t, top, home, f.pid)
}
