package live

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// A thread that one in an enclave makes is watched from its first instruction on,
// and has what its maker has: perhaps a core or a class that is not its own. If the
// event is lost that tells of it, or nobody is left to read it, it is a stray. The
// BPF programs' map still has it, and who made it.

// strays returns the threads of the map that are not known, and their makers, 0 if
// there is none to tell.
func strays(m *ebpf.Map, known func(tid int) bool) (makers map[int]int, err error) {
	makers = map[int]int{}
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
			a.inherit(t, tid)
			t.enclave.wake()
			return true
		}
		o, ok := a.formerly(maker)
		if ok {
			a.adoptOrphan(tid, o)
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
	return original{policy: unix.SCHED_NORMAL, cpus: cs.FirstCPUs(cs.MaxCPUs)}
}
