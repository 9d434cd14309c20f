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
}

// applyHost has the kernel schedule an instance as it is to be.
// +checklocks:a.mu
func (a *Actuator) applyHost(i *inst) {
	h := i.wantHost()
	if h == i.host {
		return
	}
	i.host = h
	attr, set := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: h.class, Nice: i.nice}, toLinux(&h.cores)
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
	seen := map[int]bool{}
	var errs []error
	for range passes {
		if s, err := readStat(pid); err != nil || s.started != started {
			break // it has ended, and its number may be somebody else's
		}
		news := false
		for _, tid := range allThreads(pid, nil) {
			if seen[tid] {
				continue
			}
			seen[tid], news = true, true
			if err := f(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("thread %d: %w", tid, err))
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
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return all // it has ended
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		all = append(all, tid)
		children, _ := os.ReadFile(dir + e.Name() + "/children") // none if it has ended
		for _, text := range strings.Fields(string(children)) {
			if child, err := strconv.Atoi(text); err == nil {
				all = allThreads(child, all)
			}
		}
	}
	return all
}
