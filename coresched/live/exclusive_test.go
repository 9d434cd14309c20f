package live

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// testCpuset makes a cpuset for a test, of all cores of this process, so that no
// task is moved that no test has made.
func testCpuset(t *testing.T) (dir string, cores cs.CPUSet) {
	needHost(t)
	groups, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup"))
	require.NoError(t, err)
	point, _, ok := cpusetMount(groups)
	if !ok {
		t.Skip("cgroup v1's cpuset controller is not mounted here; that of v2 is not supported")
	}
	o, err := readOriginal(os.Getpid())
	require.NoError(t, err)
	if o.cpus.Len() < 2 {
		t.Skip("this process may use one core only, and one has to be left to others")
	}
	oneTestAtATime(t, point)
	old, err := filepath.Glob(filepath.Join(point, testCpusets+"*"))
	require.NoError(t, err)
	for _, dir := range old {
		require.NoError(t, dissolve(dir, point)) // of a test that was killed
	}
	if err := takenCores(point, o.cpus); err != nil {
		t.Skip("others have cpusets beside the test's:", err)
	}
	dir = filepath.Join(point, fmt.Sprint(testCpusets, os.Getpid()))
	h := home{dir: point}
	if err := h.ensureSet(dir, o.cpus, true); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		t.Skip("cpusets are read-only here:", err)
	} else {
		require.NoError(t, err)
	}
	t.Cleanup(func() { require.NoError(t, dissolve(dir, point)) })
	return dir, o.cpus
}

const testCpusets = "junction-test-"

// oneTestAtATime keeps cpusets of two tests' processes from overlapping, wherever
// their temporary files are: all see the same cpusets.
func oneTestAtATime(t *testing.T, point string) {
	lock, err := os.Open(point)
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close() })
	eventually(t, "other tests' cpusets", func() bool { return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil })
}

// takenCores tells which cpuset below a folder has some of these cores, so that the
// kernel keeps them for no other one: a container runtime's, as a rule.
func takenCores(point string, cores cs.CPUSet) error {
	h := home{dir: point}
	return h.overlaps(&cores, "nobody")
}

// stranger is a process that no enclave has.
type stranger struct {
	pid int
	was cs.CPUSet
}

// startStrangers starts processes in a cpuset: one that may use all cores, one each
// that may use one only.
func startStrangers(t *testing.T, dir string, cores cs.CPUSet) (all []stranger) {
	sets := []cs.CPUSet{cores}
	for c := cores.Next(0); c != cs.NoCPU && len(sets) < 3; c = cores.Next(c + 1) {
		var one cs.CPUSet
		one.Add(c)
		sets = append(sets, one)
	}
	for i, s := range sets {
		cmd := exec.Command("/bin/sleep", "600")
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		require.NoError(t, move(cmd.Process.Pid, dir))
		if i > 0 {
			set := toLinux(&s)
			require.NoError(t, unix.SchedSetaffinity(cmd.Process.Pid, &set))
		}
		all = append(all, stranger{cmd.Process.Pid, s})
	}
	return all
}

// off checks that strangers are on cores alone.
func off(t *testing.T, all []stranger, cores cs.CPUSet) {
	t.Helper()
	for _, s := range all {
		got, err := affinity(s.pid)
		require.NoError(t, err)
		for c := range got {
			require.Zero(t, got[c]&^cores[c], "%s is not of %s", got, cores)
		}
	}
}

// back waits until strangers are where and as they were, and our cpusets are gone.
func back(t *testing.T, all []stranger, dir string) {
	t.Helper()
	h, err := findHome(dir)
	require.NoError(t, err)
	eventually(t, "strangers are as they were", func() bool {
		for _, s := range all {
			got, err := affinity(s.pid)
			require.NoError(t, err)
			in, err := cpusetOf(s.pid)
			require.NoError(t, err)
			if got != s.was || in != h.path {
				return false
			}
		}
		left, err := h.owned("")
		require.NoError(t, err)
		return len(left) == 0
	})
}

// split returns the last core and the others.
func split(cores cs.CPUSet) (last, others cs.CPUSet) {
	others = cores
	for c := cores.Next(0); c != cs.NoCPU; c = cores.Next(c + 1) {
		last = cs.CPUSet{}
		last.Add(c)
	}
	others.Remove(last.Next(0))
	return last, others
}

// confinedWorkers starts workers whose process lies in a cpuset.
func confinedWorkers(t *testing.T, dir string) []int {
	tids := startWorkers(t)
	s, err := readStat(tids[0])
	require.NoError(t, err)
	confine(t, s.tgid, dir)
	return tids
}

// confine moves a process to a cpuset, with the threads that it makes meanwhile.
func confine(t *testing.T, pid int, dir string) {
	who := identityOf(pid)
	require.NoError(t, eachThread(pid, who.Started, func(tid int) error { return move(tid, dir) }))
}

func newExclusive(t *testing.T, dir string) *Actuator {
	o := options()
	o.Cpusets = dir
	a, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	return a
}

// TestExclusive: nobody else runs on an exclusive enclave's cores; whatever ends
// that, each task has what it had, in the cpuset that it was in.
func TestExclusive(t *testing.T) {
	dir, cores := testCpuset(t)
	mine, theirs := split(cores)
	strangers, tids := startStrangers(t, dir, cores), confinedWorkers(t, dir)
	before := originals(t, tids)
	a := newExclusive(t, dir)
	require.NoError(t, a.Create("e", mine, 0))
	require.NoError(t, a.Keep("e"))
	off(t, strangers, theirs)
	s := enclaveOf(t, a, "e")
	require.True(t, s.Exclusive && s.Held)
	require.NoError(t, a.Push("e", tids[1:]))
	_, err := a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids[:1]))
	eventually(t, "hand-offs", func() bool { return enclaveOf(t, a, "e").Handoffs > 50 })
	for _, o := range originals(t, tids) {
		require.Equal(t, mine, o.cpus)
	}
	progress(t, tids)

	// Its policy is lost: all are as they were, until there is another.
	require.NoError(t, unix.Kill(enclaveOf(t, a, "e").PID, unix.SIGKILL))
	asBefore(t, tids, before)
	back(t, strangers, dir)
	s = enclaveOf(t, a, "e")
	require.True(t, s.Exclusive && !s.Held)
	t.Logf("policy killed: restored in %v µs", s.RestoredUS)
	_, err = a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	off(t, strangers, theirs)
	handoffs := enclaveOf(t, a, "e").Handoffs
	eventually(t, "the successor runs threads", func() bool { return enclaveOf(t, a, "e").Handoffs > handoffs+10 })
	require.True(t, enclaveOf(t, a, "e").Held)

	require.NoError(t, a.Destroy("e"))
	asBefore(t, tids, before)
	back(t, strangers, dir)
	progress(t, tids)
}

// TestMovedMeanwhile: who was moved to another cpuset while the cores were everybody's
// is left there when they are kept again, and leaves the enclave.
func TestMovedMeanwhile(t *testing.T) {
	dir, cores := testCpuset(t)
	mine, theirs := split(cores)
	tids, f := confinedWorkers(t, dir), startInstance(t)
	confine(t, f.pid, dir)
	before := originals(t, tids)
	a := newExclusive(t, dir)
	require.NoError(t, a.Create("e", mine, 0))
	require.NoError(t, a.Keep("e"))
	require.NoError(t, a.Push("e", tids))
	_, err := a.SetPolicy("e", "ias", nil)
	require.NoError(t, err)
	require.NoError(t, f.join(t, a, "e", InstanceOptions{Name: "i", Kthreads: 1}))
	h, err := findHome(dir)
	require.NoError(t, err)
	in := func(tid int) string {
		set, err := cpusetOf(tid)
		require.NoError(t, err)
		return set
	}
	require.NotEqual(t, h.path, in(tids[0]))
	require.NoError(t, unix.Kill(enclaveOf(t, a, "e").PID, unix.SIGKILL))
	asBefore(t, tids, before) // in the home, which is whole
	other := filepath.Join(dir, "other")
	require.NoError(t, h.ensureSet(other, theirs, false))
	for _, tid := range append(f.tids, tids[0]) {
		require.NoError(t, move(tid, other))
	}
	_, err = a.SetPolicy("e", "ias", nil)
	require.NoError(t, err)
	require.True(t, enclaveOf(t, a, "e").Held)
	require.Len(t, a.Threads(), len(tids)-1)
	require.Empty(t, a.Instances())
	f.leave(t) // its page
	require.NotEqual(t, h.path, in(tids[1]))
	moved := path.Join(h.path, "other")
	require.Equal(t, moved, in(tids[0]))
	require.NoError(t, a.Destroy("e"))
	asBefore(t, tids[1:], before[1:])
	for _, tid := range append(f.tids, tids[0]) {
		require.Equal(t, moved, in(tid))
		got, err := affinity(tid)
		require.NoError(t, err)
		require.Equal(t, theirs, got)
	}
}

// A thread that was pushed into an ordinary enclave while another one is exclusive
// gets back the cores that it had before either.
func TestExclusiveBesideOrdinary(t *testing.T) {
	dir, cores := testCpuset(t)
	mine, theirs := split(cores)
	tids := confinedWorkers(t, dir)
	before := originals(t, tids)
	a := newExclusive(t, dir)
	require.NoError(t, a.Create("ordinary", theirs, 0))
	require.NoError(t, a.Create("exclusive", mine, 0))
	require.NoError(t, a.Keep("exclusive"))
	require.NoError(t, a.Push("ordinary", tids[:2]))
	require.NoError(t, a.Push("exclusive", tids[2:]))
	for _, name := range []string{"ordinary", "exclusive"} {
		_, err := a.SetPolicy(name, "sol", nil)
		require.NoError(t, err)
	}
	for _, name := range []string{"ordinary", "exclusive"} {
		eventually(t, "hand-offs", func() bool { return enclaveOf(t, a, name).Handoffs > 10 })
	}
	require.NoError(t, a.Destroy("ordinary"))
	require.NoError(t, a.Destroy("exclusive"))
	asBefore(t, tids, before)
}

// Instances move as a whole, with the threads that they make.
func TestExclusiveInstance(t *testing.T) {
	dir, cores := testCpuset(t)
	mine, _ := split(cores)
	a, f := newExclusive(t, dir), startInstance(t)
	confine(t, f.pid, dir)
	require.NoError(t, a.Create("e", mine, 0))
	require.NoError(t, a.Keep("e"))
	_, err := a.SetPolicy("e", "ias", nil)
	require.NoError(t, err)
	require.NoError(t, f.join(t, a, "e", InstanceOptions{Name: "i", Kthreads: 1}))
	f.scheduled(t, unix.SCHED_NORMAL, mine)
	f.leave(t)
	_, theirs := split(cores)
	f.scheduled(t, unix.SCHED_NORMAL, theirs)
	require.NoError(t, a.Destroy("e"))
	f.scheduled(t, unix.SCHED_NORMAL, cores)
}

func TestExclusiveRefusals(t *testing.T) {
	dir, cores := testCpuset(t)
	mine, _ := split(cores)
	a := newExclusive(t, dir)
	require.ErrorIs(t, a.Keep("none"), ErrEnclave)
	require.NoError(t, a.Create("all", cores, 0))
	err := a.Keep("all")
	require.ErrorIs(t, err, ErrExclusive)
	require.ErrorContains(t, err, "leave them one")
	require.NoError(t, a.Destroy("all"))

	h := home{dir: dir}
	other := filepath.Join(dir, "other")
	require.NoError(t, h.ensureSet(other, mine, false))
	require.NoError(t, a.Create("e", mine, 0))
	err = a.Keep("e")
	require.ErrorIs(t, err, ErrExclusive)
	require.ErrorContains(t, err, "/other")
	require.NoError(t, unix.Rmdir(other))
	require.NoError(t, a.Keep("e"))
	require.NoError(t, a.Keep("e"), "it is already")
	elsewhere := startWorkers(t) // in the cpuset of this process
	require.ErrorIs(t, a.Push("e", elsewhere[:1]), ErrRefused)
	require.NoError(t, a.Destroy("e"))
	left, err := h.owned("")
	require.NoError(t, err)
	require.Empty(t, left)
}

// The actuator is killed, or stands still: its guard gives all cores back. With its
// guard killed too the next one does.
func TestExclusiveActuatorDies(t *testing.T) {
	for _, how := range []string{"SIGKILL", "SIGSTOP", "both"} {
		t.Run(how, func(t *testing.T) {
			dir, cores := testCpuset(t)
			mine, theirs := split(cores)
			strangers, tids := startStrangers(t, dir, cores), confinedWorkers(t, dir)
			before := originals(t, tids)
			t.Setenv(cpusetsEnv, dir)
			cmd, _ := startActuator(t, mine, tids)
			off(t, strangers, theirs)
			require.NoError(t, Reclaim(dir))
			off(t, strangers, theirs) // its owner lives
			if how != "both" {
				require.NoError(t, cmd.Process.Signal(unix.SignalNum(how)))
				asBefore(t, tids, before)
				back(t, strangers, dir)
				progress(t, tids)
				return
			}
			for _, pid := range childrenOf(t, cmd.Process.Pid) { // its guard and its policy
				require.NoError(t, unix.Kill(pid, unix.SIGKILL))
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			require.NoError(t, Reclaim(dir))
			back(t, strangers, dir)
		})
	}
}

// childrenOf stops a process, so that it makes no more, and lists those it has.
func childrenOf(t *testing.T, pid int) (all []int) {
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	for tid := range threadsInProc(t, pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		require.NoError(t, err)
		for _, text := range strings.Fields(string(b)) {
			var child int
			_, err := fmt.Sscan(text, &child)
			require.NoError(t, err)
			all = append(all, child)
		}
	}
	return all
}

func TestCpusetMount(t *testing.T) {
	const info = `24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 24 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 24 0:31 /docker/ab\040c /sys/fs/cgroup/cpuset ro,relatime shared:9 - cgroup cpuset rw,cpuset
`
	point, root, ok := cpusetMount(parseMounts(t, info))
	require.True(t, ok)
	require.Equal(t, "/sys/fs/cgroup/cpuset", point)
	require.Equal(t, "/docker/ab c", root)
	_, _, ok = cpusetMount(parseMounts(t, strings.ReplaceAll(info, ",cpuset", "")))
	require.False(t, ok)
}

func parseMounts(t *testing.T, info string) []*mountinfo.Info {
	groups, err := mountinfo.GetMountsFromReader(strings.NewReader(info), mountinfo.FSTypeFilter("cgroup"))
	require.NoError(t, err)
	return groups
}

func TestOwnedBy(t *testing.T) {
	require.Equal(t, "junction.12.345", ownedBy("junction.12.345.rest"))
	for _, name := range []string{"", "junction", "junction.1.2", "junction.1.2.", "junction.01.2.rest", "junction.1.-2.rest", "xjunction.1.2.rest", "junction.1.2.re st"} {
		require.Empty(t, ownedBy(name), name)
	}
	require.False(t, ownerLives(ownerName(os.Getpid(), 1)))
}

func FuzzOwnedBy(f *testing.F) {
	f.Add("junction.1.2.rest")
	f.Fuzz(func(t *testing.T, name string) {
		if o := ownedBy(name); o != "" {
			require.True(t, strings.HasPrefix(name, o+"."))
		}
	})
}
