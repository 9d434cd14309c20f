package live

import (
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	cs "junction/coresched"
)

// TestPushedOff: who is moved off a core is exactly who computed on it when it was
// taken, and did not get one again, and whose core another one has now.
func TestPushedOff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pushed
		members := []*member{{tid: 1}, {tid: 2}, {tid: 3}}
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			computed := map[*member][]cs.CPU{}
			var taken cs.CPUSet
			for range rapid.IntRange(0, 8).Draw(t, "actions") {
				m, c := rapid.SampledFrom(members).Draw(t, "thread"), cs.CPU(rapid.IntRange(0, 2).Draw(t, "core"))
				m.awake = rapid.Bool().Draw(t, "awake")
				m.adopted = rapid.IntRange(0, 9).Draw(t, "adopted") > 0
				x := cs.Action{Kind: cs.Stop, CPU: c}
				m.class = unix.SCHED_IDLE
				if rapid.Bool().Draw(t, "runs") {
					x.Kind, m.class = cs.Run, unix.SCHED_NORMAL
					taken.Add(c)
				} else if m.awake {
					computed[m] = append(computed[m], c)
				}
				p.note(m, x)
			}
			moved := map[*member][]cs.CPU{}
			p.settle(func(m *member, c cs.CPU) { moved[m] = append(moved[m], c) })
			for m, cores := range computed {
				cores = slices.DeleteFunc(cores, func(c cs.CPU) bool {
					return !taken.Has(c) || !m.adopted || m.class != unix.SCHED_IDLE
				})
				if !slices.Equal(cores, moved[m]) {
					t.Fatalf("thread %d is moved off %v, not %v", m.tid, moved[m], cores)
				}
				delete(moved, m)
			}
			if len(moved) > 0 {
				t.Fatalf("who computed on none is moved: %v", moved)
			}
		}
	})
}

// TestLeave: a thread that was moved off a core has the cores that it had before, also
// where there is no other.
func TestLeave(t *testing.T) {
	tid, ended := make(chan int), make(chan struct{})
	var done atomic.Bool
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocks: the thread ends with it
		for tid <- unix.Gettid(); !done.Load(); {
		}
	}()
	m := &member{tid: <-tid}
	defer func() { done.Store(true); <-ended }()
	o, err := readOriginal(os.Getpid())
	require.NoError(t, err)
	one, c := oneCore(t), o.cpus.Next(0)
	for _, s := range []struct {
		name        string
		cores, cpus cs.CPUSet
	}{
		{"to another of its enclave", o.cpus, o.cpus},
		{"to another that it may use", one, o.cpus},
		{"there is no other", one, one},
	} {
		m.cores, m.cpus = s.cores, s.cpus
		set := toLinux(&m.cores)
		require.NoError(t, unix.SchedSetaffinity(m.tid, &set), s.name)
		for range 20 {
			require.NoError(t, m.leave(c), s.name)
			got, err := affinity(m.tid)
			require.NoError(t, err)
			require.Equal(t, s.cores, got, s.name)
		}
	}
}
