// Package proctree says what a process and all that descend from it use: CPU time
// and memory, from /proc (proc_pid_stat(5), proc_pid_smaps(5)).
package proctree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on every
// architecture that Go runs on. The kernel rounds a precise sum to it.
const tick = 10 * time.Millisecond

// Memory is what a process tree holds. Pages that only processes of the tree map,
// but more than one of them, are in PSS and not in Private.
type Memory struct {
	Processes int
	PSS       uint64 // bytes, each page divided by the number of processes that map it
	Private   uint64 // bytes of pages that one process alone maps (USS)
	RSS       uint64 // bytes, shared pages counted in full for each process
}

// Pids returns root and its descendants, as far as they are alive.
func Pids(root int) ([]int, error) {
	all, err := snapshot()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, s := range descendants(all, root) {
		pids = append(pids, s.pid)
	}
	return pids, nil
}

// CPU returns the CPU time that root and its descendants have used, and that
// of those of them that ended and were waited for.
func CPU(root int) (time.Duration, error) {
	all, err := snapshot()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, s := range descendants(all, root) {
		sum += s.cpu
	}
	return sum, nil
}

// MemoryOf adds up the memory of root and its descendants. A process that ends
// meanwhile counts for nothing.
func MemoryOf(root int) (Memory, error) {
	pids, err := Pids(root)
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for _, pid := range pids {
		text, err := os.ReadFile(procFile(pid, "smaps_rollup"))
		if gone(err) {
			continue
		}
		if err != nil {
			return Memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		if err := m.add(string(text)); err != nil {
			return Memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
		}
	}
	return m, nil
}

// snapshot reads the stat of every process.
func snapshot() ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []stat
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(procFile(pid, "stat"))
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
		s, err := parseStat(string(text))
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// descendants picks root and what descends from it.
func descendants(all []stat, root int) []stat {
	children := map[int][]stat{}
	var tree []stat
	for _, s := range all {
		if s.pid == root {
			tree = append(tree, s)
		} else {
			children[s.ppid] = append(children[s.ppid], s)
		}
	}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i].pid]...)
		delete(children, tree[i].pid) // a torn snapshot may hold a loop
	}
	return tree
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// gone says that the process ended while it was being looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
