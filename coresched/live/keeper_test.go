package live

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	cs "junction/coresched"
)

// TestGivingTakesItsTime: while a cpuset cannot be removed yet, others are moved: who
// waits for that holds the actuator's lock, and the guard takes it for dead.
func TestGivingTakesItsTime(t *testing.T) {
	dir, cores := testCpuset(t)
	k, err := newKeeper(dir)
	require.NoError(t, err)
	var one cs.CPUSet
	one.Add(cores.Next(0))
	_, err = k.keep(one)
	require.NoError(t, err)
	began, ended, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	end := sync.OnceFunc(func() { close(ended) })
	defer end()
	begin := sync.OnceFunc(func() { close(began) })
	k.dissolve = func(dir, to string) error {
		begin()
		<-ended
		return dissolve(dir, to)
	}
	go func() { done <- k.give(&one) }()
	within := func(c <-chan struct{}, what string) {
		select {
		case <-c:
		case <-time.After(time.Minute):
			require.Fail(t, what)
		}
	}
	within(began, "it does not begin")
	moved := make(chan struct{})
	go func() { defer close(moved); assert.NoError(t, k.aside(os.Getpid())) }()
	within(moved, "others wait for it")
	require.Empty(t, done, "it is not over")
	end()
	require.NoError(t, <-done)
	require.NoDirExists(t, k.folder(restName))
}

// TestNestedCpusets: a cpuset that somebody has made in one of ours goes with it,
// however deep and exclusive; its tasks are where they were before.
func TestNestedCpusets(t *testing.T) {
	dir, cores := testCpuset(t)
	mine, theirs := split(cores)
	k, err := newKeeper(dir)
	require.NoError(t, err)
	strangers := startStrangers(t, dir, cores)
	_, err = k.keep(mine)
	require.NoError(t, err)
	for i, x := range []struct {
		in   string
		cpus cs.CPUSet
	}{{k.setOf(&mine), mine}, {k.folder(restName), theirs}} {
		outer := filepath.Join(x.in, "outer")
		inner := filepath.Join(outer, "inner")
		require.NoError(t, k.ensureSet(outer, x.cpus, i == 0)) // only in an exclusive one it may be so
		require.NoError(t, k.ensureSet(inner, x.cpus, i == 0))
		require.NoError(t, k.ensureSet(filepath.Join(outer, "empty"), cs.CPUSet{}, false))
		require.NoError(t, move(strangers[i].pid, inner))
	}
	off(t, strangers[:1], mine)
	require.NoError(t, k.open(&mine))
	require.NoError(t, k.give(&mine))
	back(t, strangers, dir)
}

// TestCpusetsOfOthers: beside cpusets that have the cores tests that want them alone
// are skipped.
func TestCpusetsOfOthers(t *testing.T) {
	dir, cores := testCpuset(t)
	require.NoError(t, takenCores(dir, cores))
	h := home{dir: dir}
	other := filepath.Join(dir, "docker")
	require.NoError(t, h.ensureSet(other, cs.CPUSet{}, false))
	require.NoError(t, takenCores(dir, cores))
	require.NoError(t, h.ensureSet(other, oneCore(t), false))
	require.Error(t, h.ensureSet(filepath.Join(dir, "test"), cores, true), "the kernel refuses")
	require.ErrorContains(t, takenCores(dir, cores), "docker")
}
