package proctree

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const sample = "812 (a (b) c) S 7 812 812 0 -1 4194560 1 2 3 4 150 50 20 5 20 0 1 0 100 0 0"

func TestParseStat(t *testing.T) {
	s, err := parseStat(sample)
	require.NoError(t, err)
	require.Equal(t, stat{pid: 812, ppid: 7, cpu: 2250 * time.Millisecond}, s)
	for _, bad := range []string{"", "1", "1 (x", ")(", "1 (x) S 1", "x (y) S 7 1 1 0 -1 4 1 2 3 4 1 2 3 4", "1 (y) S 7 1 1 0 -1 4 1 2 3 4 1 2 three 4"} {
		_, err := parseStat(bad)
		require.Error(t, err, "%q", bad)
	}
}

func TestMemoryAdd(t *testing.T) {
	var m Memory
	require.NoError(t, m.add("00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss: 100 kB\nPss: 30 kB\nPss_Dirty: 9 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 6 kB\n"))
	require.NoError(t, m.add("")) // a zombie
	require.NoError(t, m.add("Rss: 1 kB\n"))
	require.Equal(t, Memory{Processes: 2, PSS: 30 << 10, Private: 10 << 10, RSS: 101 << 10}, m)
	require.ErrorIs(t, m.add("Rss: 1 MB\n"), errFormat)
	require.Error(t, m.add("Rss: many kB\n"))
}

// Each process of a tree is found once, whatever the parents say.
func TestDescendants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "n")
		all := make([]stat, n)
		parent := map[int]int{}
		for i := range all {
			all[i] = stat{pid: i + 1, ppid: rapid.IntRange(0, n).Draw(t, "ppid")}
			parent[i+1] = all[i].ppid
		}
		root := rapid.IntRange(1, n).Draw(t, "root")
		got := map[int]bool{}
		for _, s := range descendants(all, root) {
			require.False(t, got[s.pid], "twice: %d", s.pid)
			got[s.pid] = true
		}
		for pid := range parent {
			require.Equal(t, reaches(parent, pid, root), got[pid], "%d of %v", pid, parent)
		}
	})
}

// reaches says whether going from parent to parent leads from pid to root.
func reaches(parent map[int]int, pid, root int) bool {
	for range len(parent) + 1 {
		if pid == root {
			return true
		}
		pid = parent[pid]
	}
	return false
}

func TestOwnTree(t *testing.T) {
	child := exec.Command("cat")
	in, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	pids, err := Pids(os.Getpid())
	require.NoError(t, err)
	require.Contains(t, pids, os.Getpid())
	require.Contains(t, pids, child.Process.Pid)

	m, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.GreaterOrEqual(t, m.Processes, 2)
	require.Positive(t, m.Private)
	require.GreaterOrEqual(t, m.RSS, m.PSS)
	require.GreaterOrEqual(t, m.PSS, m.Private)

	require.NoError(t, in.Close())
	require.NoError(t, child.Wait())
	pids, err = Pids(child.Process.Pid)
	require.NoError(t, err)
	require.Empty(t, pids)
}

// CPU time does not get lost when a child ends.
func TestCPU(t *testing.T) {
	before, err := CPU(os.Getpid())
	require.NoError(t, err)
	const burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
	child := exec.Command("sh", "-c", burn)
	require.NoError(t, child.Run())
	after, err := CPU(os.Getpid())
	require.NoError(t, err)
	require.GreaterOrEqual(t, after, before)
	used := child.ProcessState.UserTime() + child.ProcessState.SystemTime()
	require.GreaterOrEqual(t, after-before+4*tick, used) // each of four fields is rounded down
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("Rss: 1 kB\nPss: 2 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parseStat(text)
		var m Memory
		_ = m.add(text)
	})
}
