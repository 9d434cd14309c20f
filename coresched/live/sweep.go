package live

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// sweepPasses is how often tasks are listed at most: until none is new, which
// could have been made by one that was not moved yet.
const sweepPasses = 100

// sweep moves the tasks of a cpuset into another one, but for the kernel's own:
// what those had could not be restored. left is how many stay.
func sweep(from, to string) (left int, err error) {
	into, err := os.OpenFile(filepath.Join(to, tasksFile), os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer into.Close()
	tried, stays := map[int]bool{}, map[int]bool{}
	for range sweepPasses {
		list, err := os.ReadFile(filepath.Join(from, tasksFile))
		if err != nil {
			return len(stays), err
		}
		news := false
		for _, text := range strings.Fields(string(list)) {
			tid, err := strconv.Atoi(text)
			if err != nil || tried[tid] {
				continue
			}
			tried[tid], news = true, true
			if moved, err := moveUser(into, tid); err != nil {
				return len(stays), err
			} else if !moved {
				stays[tid] = true
			}
		}
		if !news {
			break
		}
	}
	return len(stays), nil
}

// moveUser moves a task into the cpuset whose file of tasks is into. It is false
// for one of the kernel's. One that has ended is moved.
func moveUser(into *os.File, tid int) (bool, error) {
	if s, err := readStatAlone(tid); err != nil {
		return true, nil
	} else if s.flags&kernelThread != 0 {
		return false, nil
	}
	return moveInto(into, tid)
}

func moveInto(into *os.File, tid int) (bool, error) {
	_, err := into.WriteString(strconv.Itoa(tid))
	switch {
	case err == nil || errors.Is(err, unix.ESRCH):
		return true, nil
	case errors.Is(err, unix.EINVAL): // bound to a core by the kernel
		return false, nil
	}
	return false, fmt.Errorf("move thread %d: %w", tid, err)
}

// move moves one task into a cpuset.
func move(tid int, to string) error {
	into, err := os.OpenFile(filepath.Join(to, tasksFile), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer into.Close()
	moved, err := moveInto(into, tid)
	if err == nil && !moved {
		err = fmt.Errorf("move thread %d to %s: the kernel keeps it where it is", tid, to)
	}
	return err
}

// owned lists the cpusets of an owner, all of them ours if it is empty.
func (h *home) owned(owner string) (dirs []string, err error) {
	entries, err := os.ReadDir(h.dir)
	for _, e := range entries {
		if o := ownedBy(e.Name()); o != "" && (owner == "" || o == owner) {
			dirs = append(dirs, filepath.Join(h.dir, e.Name()))
		}
	}
	return dirs, err
}

// widen lets those in some of our cpusets use cores, at once: moving them takes
// its time. A cpuset that is gone is none.
func widen(dirs []string, cpus cs.CPUSet) error {
	var errs []error
	note := func(err error) {
		if !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, d := range dirs {
		for _, in := range nested(d) {
			note(setFile(in, exclusiveFile, "0"))
		}
	}
	for _, d := range dirs {
		note(setFile(d, cpusFile, cpus.String()))
	}
	return errors.Join(errs...)
}

// emptyTime is how long a cpuset may take to become empty: tasks that are ending
// are in it for a moment, and no event tells when they are not.
const emptyTime = 5 * time.Second

// dissolve moves the tasks of a cpuset of ours to another one and removes it, with
// the cpusets that its tasks, or others, have made in it.
func dissolve(dir, to string) error {
	for late := time.Now().Add(emptyTime); ; time.Sleep(time.Millisecond) {
		err := removeNested(dir, to)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(late) {
			return err
		}
	}
}

func removeNested(dir, to string) error {
	for _, d := range nested(dir) {
		_, err := sweep(d, to)
		if err == nil {
			err = unix.Rmdir(d)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cpuset %s: %w", d, err)
		}
	}
	return nil
}

// maxNested is how many cpusets in one are listed at a time: the next time there
// are fewer.
const maxNested = 1000

// nested lists a cpuset, last, and those in it, each before the one that it is in.
func nested(dir string) []string {
	var all []string
	var list func(dir string)
	list = func(dir string) {
		entries, _ := os.ReadDir(dir) // none if it is gone
		for _, e := range entries {
			if e.IsDir() && len(all) < maxNested {
				list(filepath.Join(dir, e.Name()))
			}
		}
		all = append(all, dir)
	}
	list(dir)
	return all
}

// clear takes away what an owner has made: first all may use all cores.
func (h *home) clear(owner string) error {
	dirs, err := h.owned(owner)
	if err != nil {
		return err
	}
	errs := []error{h.widenAll(dirs)}
	for _, d := range dirs {
		errs = append(errs, dissolve(d, h.dir))
	}
	return errors.Join(errs...)
}

func (h *home) widenAll(dirs []string) error {
	all, err := cpusOf(h.dir)
	if err != nil {
		return err
	}
	return widen(dirs, all)
}

// Reclaim takes away what actuators that have died left of exclusive cores in the
// cpuset whose folder is dir (empty: this process's): their guards had died too. In
// another PID namespace than theirs nobody can tell that they have died.
func Reclaim(dir string) error {
	if inInitialNamespace() != nil {
		return nil
	}
	h, err := findHome(dir)
	if errors.Is(err, ErrExclusive) {
		return nil // then nobody could keep cores
	}
	if err != nil {
		return err
	}
	dirs, err := h.owned("")
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		if owner := ownedBy(filepath.Base(d)); !ownerLives(owner) {
			errs = append(errs, h.clear(owner))
		}
	}
	return errors.Join(errs...)
}

// ownerName is an actuator's, told from a later process with its number by when it
// was started.
func ownerName(pid int, started uint64) string { return fmt.Sprintf("junction.%d.%d", pid, started) }

// ownedBy returns the owner of a cpuset by its name, or "" if it is none of ours.
func ownedBy(name string) string {
	var pid int
	var started uint64
	var what string
	if n, err := fmt.Sscanf(name, "junction.%d.%d.%s", &pid, &started, &what); n != 3 || err != nil {
		return ""
	}
	if owner := ownerName(pid, started); name == owner+"."+what {
		return owner
	}
	return ""
}

func ownerLives(owner string) bool {
	var pid int
	var started uint64
	_, err := fmt.Sscanf(owner, "junction.%d.%d", &pid, &started)
	s, statErr := readStatAlone(pid)
	return err == nil && statErr == nil && s.started == started && !s.gone()
}
