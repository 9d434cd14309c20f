package live

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// original is how a thread was scheduled before it was pushed.
type original struct {
	policy uint32
	nice   int32
	cpus   cs.CPUSet
	// whole: cpus are all of its cpuset, and it is to have those that come to it. The
	// kernel does not tell that from a mask of the same cores.
	whole bool
	reset bool   // SCHED_FLAG_RESET_ON_FORK, sched(7)
	slice uint64 // nanoseconds, sched_setattr(2); 0: it has none of its own
}

// readOriginal refuses what is not an ordinary thread.
func readOriginal(tid int) (o original, err error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return o, notThere(tid, err)
	}
	switch attr.Policy {
	case unix.SCHED_NORMAL, unix.SCHED_BATCH, unix.SCHED_IDLE:
	default:
		return o, fmt.Errorf("%w: %d is in scheduling class %d; only ordinary ones can be scheduled politely", ErrRefused, tid, attr.Policy)
	}
	o.policy, o.nice, o.reset = attr.Policy, attr.Nice, resets(attr)
	if !usualSlice(attr.Runtime) {
		o.slice = attr.Runtime
	}
	if o.cpus, err = affinity(tid); err != nil {
		return o, notThere(tid, err)
	}
	o.whole = isWhole(tid, &o.cpus)
	return o, nil
}

func resets(attr *unix.SchedAttr) bool { return attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 }

// attr is what a thread is to have in a class.
func (o *original) attr(class uint32) unix.SchedAttr {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: class, Nice: o.nice, Runtime: o.slice}
	if o.reset {
		attr.Flags = unix.SCHED_FLAG_RESET_ON_FORK
	}
	return attr
}

// mask is on which cores it may run, as the kernel is to be told.
func (o *original) mask() cs.CPUSet {
	if o.whole {
		return cs.FirstCPUs(cs.MaxCPUs)
	}
	return o.cpus
}

// child is what a thread has that one with o makes.
func (o *original) child() original {
	c := *o
	if o.reset {
		c.nice, c.slice, c.reset = max(o.nice, 0), 0, false
	}
	return c
}

// restore gives a thread back what it had. A thread that has ended is restored.
func (o *original) restore(tid int) error {
	attr, mask := o.attr(o.policy), o.mask()
	set := toLinux(&mask)
	err := errors.Join(setAttr(tid, &attr), unix.SchedSetaffinity(tid, &set))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// baseSlice is what threads have that have no slice of their own, as last seen.
var baseSlice atomic.Uint64

// usualSlice tells whether a slice is what the kernel gave a thread by itself. Linux
// before 6.12 does not tell, and has no others.
func usualSlice(slice uint64) bool {
	if slice == 0 || slice == baseSlice.Load() {
		return true
	}
	base := readBaseSlice()
	baseSlice.Store(base)
	// The base goes with the number of cores, 1 to 4 times as long; one that has slept
	// since that was another one has the slice of then.
	for then := range uint64(4) {
		for now := range uint64(4) {
			if slice*(now+1) == base*(then+1) {
				return true
			}
		}
	}
	return false
}

// readBaseSlice makes a thread that has no slice of its own, to see which it has.
func readBaseSlice() uint64 {
	slice := make(chan uint64)
	go func() {
		runtime.LockOSThread() // the thread ends with this
		attr, err := unix.SchedGetAttr(0, 0)
		if err == nil {
			err = setAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: attr.Nice})
		}
		if err == nil {
			attr, err = unix.SchedGetAttr(0, 0)
		}
		if err != nil {
			slice <- 0
			return
		}
		slice <- attr.Runtime
	}()
	return <-slice
}

// isWhole tells whether cores are all of a thread's cpuset. One of ours is none that
// it is to be given back.
func isWhole(tid int, cpus *cs.CPUSet) bool {
	in, err := cpusetOf(tid)
	if err != nil || ownedBy(path.Base(in)) != "" {
		return false
	}
	file := "/sys/devices/system/cpu/online"
	if in != "/" {
		if file, err = effectiveFile(in); err != nil {
			return false
		}
	}
	all, err := readCPUs(file)
	return err == nil && all == *cpus
}

// effectiveFile returns the file of a cpuset that has the cores it has at present: of
// cgroup v1, or else of v2.
func effectiveFile(in string) (string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return "", err
	}
	name := "cpuset.effective_cpus"
	point, root, ok := cpusetMount(mounts)
	for _, m := range mounts {
		if !ok && m.FSType == "cgroup2" {
			point, root, ok, name = m.Mountpoint, m.Root, true, "cpuset.cpus.effective"
		}
	}
	rel, err := filepath.Rel(root, in)
	if err != nil || !ok || strings.HasPrefix(rel, "..") {
		return "", fmt.Errorf("cpuset %s is out of sight: %w", in, os.ErrNotExist)
	}
	return filepath.Join(point, rel, name), nil
}
