package live

import (
	"io"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	cs "junction/coresched"
)

// pushAndBack has threads scheduled by a policy, and given back.
func pushAndBack(t *testing.T, a *Actuator, core cs.CPUSet, tids []int) {
	t.Helper()
	require.NoError(t, a.Create("e", core, 0))
	_, err := a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", tids))
	eventually(t, "hand-offs", func() bool { return enclaveOf(t, a, "e").Handoffs > 20 })
	require.NoError(t, a.Destroy("e"))
}

// TestOriginalAttributes: threads get back that they reset on fork, and slices of
// their own; those that have none are given none.
func TestOriginalAttributes(t *testing.T) {
	a, tids := newActuator(t), startWorkers(t)
	const slice = 7_000_000
	require.NoError(t, setAttr(tids[0], &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Nice: 3, Runtime: slice,
	}))
	attr := func(tid int) unix.SchedAttr {
		attr, err := unix.SchedGetAttr(tid, 0)
		require.NoError(t, err)
		return *attr
	}
	before := attr(tids[0])
	if before.Runtime == 0 {
		t.Log("this kernel has no slices of threads' own")
	} else {
		require.EqualValues(t, slice, before.Runtime)
	}
	all := originals(t, tids)
	require.True(t, all[0].reset)
	require.EqualValues(t, before.Runtime, all[0].slice)
	require.Zero(t, all[1].slice)
	pushAndBack(t, a, oneCore(t), tids)
	asBefore(t, tids, all)
	require.Equal(t, before, attr(tids[0]))
	require.True(t, usualSlice(attr(tids[1]).Runtime))
}

// TestOriginalCpuset: a thread that could run on all cores of its cpuset has those
// that come to it later; one that could not has what it had.
func TestOriginalCpuset(t *testing.T) {
	dir, cores := testCpuset(t)
	a, h := newActuator(t), home{dir: dir}
	one, _ := split(cores)
	in := filepath.Join(dir, "in")
	require.NoError(t, h.ensureSet(in, one, false))
	tids := confinedWorkers(t, in)
	require.True(t, originals(t, tids)[0].whole)
	pushAndBack(t, a, one, tids)
	require.NoError(t, setFile(in, cpusFile, cores.String()))
	for _, o := range originals(t, tids) {
		require.Equal(t, cores, o.cpus)
	}
	set := toLinux(&one)
	require.NoError(t, unix.SchedSetaffinity(tids[0], &set))
	before := originals(t, tids)
	require.False(t, before[0].whole)
	require.True(t, before[1].whole)
	pushAndBack(t, a, one, tids)
	asBefore(t, tids, before)
}

// TestResetOnFork: what one makes that resets on fork has in the end what the kernel
// gives to those that are made outside of enclaves.
func TestResetOnFork(t *testing.T) {
	a := newActuator(t)
	cmd, in, out := converse(t, nil, "/bin/sh", "-c", "while read go; do sleep 600 & echo $!; done; kill $(jobs -p)")
	require.NoError(t, setAttr(cmd.Process.Pid, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Nice: -3, Runtime: 7_000_000,
	}))
	sleeper := func() int {
		_, err := io.WriteString(in, "go\n")
		require.NoError(t, err)
		require.True(t, out.Scan())
		pid, err := strconv.Atoi(out.Text())
		require.NoError(t, err)
		t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
		return pid
	}
	outside := originals(t, []int{sleeper()})
	require.Zero(t, outside[0].nice)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	require.NoError(t, a.Push("e", []int{cmd.Process.Pid}))
	inside := sleeper()
	eventually(t, "it is taken", func() bool { return enclaveOf(t, a, "e").Tasks == 2 })
	require.NoError(t, a.Destroy("e"))
	asBefore(t, []int{inside}, outside)
	maker := originals(t, []int{cmd.Process.Pid})[0]
	require.True(t, maker.reset)
	require.EqualValues(t, -3, maker.nice)
}

// What a record holds is what was had.
func TestOriginalIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := original{
			policy: rapid.Uint32().Draw(t, "class"), nice: rapid.Int32Range(-20, 19).Draw(t, "nice"),
			cpus: cs.FirstCPUs(rapid.IntRange(1, 99).Draw(t, "cpus")), whole: rapid.Bool().Draw(t, "whole"),
			reset: rapid.Bool().Draw(t, "reset"), slice: rapid.Uint64().Draw(t, "slice"),
		}
		r := o.record()
		again, err := r.original()
		require.NoError(t, err)
		require.Equal(t, o, again)
	})
}
