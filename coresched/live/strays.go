package live

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// A thread that one in an enclave makes is watched from its first instruction on,
// and has what its maker has: perhaps a core or a class that is not its own. If the
// event is lost that tells of it, or nobody is left to read it, it is a stray. The
// BPF programs' map still has it, and who made it. The guard has that map, and holds
// the programs, so that the map is true also when the actuator has died.

// sharedMap is the descriptor that a guard has the map at.
const sharedMap = 3

// strays returns the threads of the map, if there is one, that are not known, and
// their makers, 0 if there is none to tell.
func strays(m *ebpf.Map, known func(tid int) bool) (makers map[int]int, err error) {
	makers = map[int]int{}
	if m == nil {
		return makers, nil
	}
	var tid uint32
	var v watched
	all := m.Iterate()
	for all.Next(&tid, &v) {
		if !known(int(tid)) {
			makers[int(tid)] = int(v.Maker)
		}
	}
	if err := all.Err(); err != nil {
		return makers, fmt.Errorf("threads that are watched: %w", err)
	}
	return makers, nil
}

// byMaker calls f for strays, makers before those that they have made, until f knows
// no more makers, and returns those that are left.
func byMaker(makers map[int]int, f func(tid, maker int) bool) (left []int) {
	for again := true; again; {
		again = false
		for tid, maker := range makers {
			if f(tid, maker) {
				delete(makers, tid)
				again = true
			}
		}
	}
	for tid := range makers {
		left = append(left, tid)
	}
	slices.Sort(left)
	return left
}

// takeStrays takes threads whose makers are in enclaves, and restores the others.
// +checklocks:a.mu
func (a *Actuator) takeStrays() {
	makers, err := strays(a.watch.threads, func(tid int) bool { return a.threads[tid] != nil })
	if err != nil {
		a.opts.Logger.Warn("look for threads of which nothing was told", "error", err)
	}
	left := byMaker(makers, func(tid, maker int) bool {
		if t := a.threads[maker]; t != nil {
			a.inherit(t, tid, t.original.child())
			t.enclave.wake()
			return true
		}
		o, ok := a.formerly(maker)
		if ok {
			a.adoptOrphan(tid, o.child())
		}
		return ok
	})
	for _, tid := range left {
		a.adoptOrphan(tid, a.likeSibling(tid))
	}
}

// likeSibling returns what a thread is to have of whose maker nothing is known: what
// another one of its process had, or what most have.
// +checklocks:a.mu
func (a *Actuator) likeSibling(tid int) original {
	if tgid, err := readTGID(tid); err == nil {
		for _, m := range a.threads {
			if m.tgid == tgid {
				return m.original
			}
		}
	}
	return usual()
}

// share duplicates what a guard is to have: the map, then what holds the programs.
func (w *watcher) share() (files []*os.File, err error) {
	fds := []int{w.threads.FD()}
	for _, l := range w.links {
		if x, ok := l.(interface{ FD() int }); ok {
			fds = append(fds, x.FD())
		}
	}
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("duplicate a descriptor of BPF: %w", err)
		}
		files = append(files, os.NewFile(uintptr(dup), "bpf"))
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// restoreStrays gives threads of which a guard was not told what their makers had. It
// looks again until there are none: one may be made by another before that is found.
func restoreStrays(m *ebpf.Map, threads map[int]taken) (restored int, err error) {
	var errs []error
	for range passes {
		makers, err := strays(m, func(tid int) bool { _, ok := threads[tid]; return ok })
		errs = append(errs, err)
		if len(makers) == 0 {
			break
		}
		restore := func(tid int, like taken) {
			o := like.child()
			if err := o.restore(tid); err != nil {
				errs = append(errs, fmt.Errorf("restore thread %d: %w", tid, err))
			}
			threads[tid] = taken{started: identityOf(tid).Started, original: o, enclave: like.enclave}
			restored++
		}
		left := byMaker(makers, func(tid, maker int) bool {
			t, ok := threads[maker]
			if ok {
				restore(tid, t)
			}
			return ok
		})
		for _, tid := range left {
			restore(tid, siblingOf(tid, threads))
		}
	}
	return restored, errors.Join(errs...)
}

// siblingOf is likeSibling for a guard.
func siblingOf(tid int, threads map[int]taken) taken {
	if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", tid)); err == nil {
		for _, e := range entries {
			n, _ := strconv.Atoi(e.Name()) // 0 is no thread
			if t, ok := threads[n]; ok {
				return t
			}
		}
	}
	return taken{original: usual()}
}

// usual is what most threads have.
func usual() original {
	return original{policy: unix.SCHED_NORMAL, cpus: cs.FirstCPUs(cs.MaxCPUs)}
}
