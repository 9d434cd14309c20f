package live

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// hostSched is how all threads of a process are scheduled by the kernel. New ones
// inherit it from their makers.
type hostSched struct {
	class uint32
	cores cs.CPUSet
	idle  bool // its group is
}

// applyHost has the kernel schedule an instance as it is to be.
// +checklocks:a.mu
func (a *Actuator) applyHost(i *inst) {
	h := i.wantHost()
	if h == i.host {
		return
	}
	if h.idle != i.host.idle {
		if err := a.groups.setIdle(i.group, h.idle); err != nil {
			a.opts.Logger.Warn("instance cannot be scheduled", "instance", i.Name, "cgroup", i.group, "error", err)
		}
	}
	i.host = h
	attr, set := i.attr(h.class), toLinux(&h.cores)
	if err := eachThread(i.PID, i.started, func(tid int) error {
		return errors.Join(unix.SchedSetaffinity(tid, &set), setAttr(tid, &attr))
	}); err != nil {
		a.opts.Logger.Warn("instance cannot be scheduled", "instance", i.Name, "error", err)
	}
}

// restoreProcess gives all threads of a process what its first one had.
func restoreProcess(pid int, started uint64, o *original) error {
	return eachThread(pid, started, o.restore)
}

// passes is how often the threads of a process are listed at most: until there is
// no new one, which could have inherited from one that was not reached yet.
const passes = 8

// eachThread calls f once for each thread of a process and of its descendants. One
// that ends meanwhile is no error.
func eachThread(pid int, started uint64, f func(tid int) error) error {
	return eachOf(func() []int {
		if s, err := readStatAlone(pid); err != nil || s.started != started {
			return nil // it has ended, and its number may be somebody else's
		}
		return allThreads(pid, nil)
	}, f)
}

// eachOf calls f once for each thread or process that is listed, again and again
// until there is no new one. One that ends meanwhile is no error.
func eachOf(list func() []int, f func(id int) error) error {
	seen := map[int]bool{}
	var errs []error
	for range passes {
		news := false
		for _, id := range list() {
			if seen[id] {
				continue
			}
			seen[id], news = true, true
			if err := f(id); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("thread %d: %w", id, err))
			}
		}
		if !news {
			break
		}
	}
	return errors.Join(errs...)
}

// allThreads appends the threads of a process and of its descendants.
func allThreads(pid int, all []int) []int {
	eachTask(pid, func(_, tid int) { all = append(all, tid) })
	return all
}

// allProcesses appends a process and its descendants.
func allProcesses(pid int, all []int) []int {
	eachTask(pid, func(pid, _ int) {
		if len(all) == 0 || all[len(all)-1] != pid {
			all = append(all, pid)
		}
	})
	return all
}

// eachTask calls f with the threads of a process, then with those of its
// descendants.
func eachTask(pid int, f func(pid, tid int)) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it has ended
	}
	var children []int
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		f(pid, tid)
		list, _ := os.ReadFile(dir + e.Name() + "/children") // none if it has ended
		for text := range strings.FieldsSeq(string(list)) {
			if child, err := strconv.Atoi(text); err == nil {
				children = append(children, child)
			}
		}
	}
	for _, child := range children {
		eachTask(child, f)
	}
}
