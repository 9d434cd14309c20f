package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// What SCHED_IDLE promises holds among the threads of one autogroup or CPU cgroup
// only, and since Linux 6.6 (EEVDF) not even there: once an ordinary thread was
// pushed off by another one that then sleeps, it counts as having had more than
// its part, and the kernel has the SCHED_IDLE thread run until the next tick. So
// best effort is ordinary threads, in a CPU cgroup of the instance's own with
// cpu.idle set. Beside a busy loop on 6.18, redis' 99th percentile is 1.4 to 3 ms by
// SCHED_IDLE, also in such a group, and as on an idle machine by the group alone.
//
// The group lies in the one that the instance was in, whose limits go on holding.
// This is about cgroups of version 1: one below a group of version 2 may have no
// processes beside it.

// groups is the hierarchy of CPU cgroups, mounted where nobody sees it: in the
// monitor's mount namespace /sys may be another one.
type groups struct {
	root *os.File
	// moving: a process that is in a new group already is not moved out of it by the
	// end of the one before.
	moving sync.Mutex
}

var errNoGroups = errors.New("no CPU cgroups of version 1 here")

// openGroups fails with errNoGroups where there is no such hierarchy. It makes
// none: that would take the controller away from cgroups of version 2.
func openGroups() (*groups, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, errors.Join(errNoGroups, err)
	}
	controllers, _, ok := parseGroup(b)
	if !ok {
		return nil, errNoGroups
	}
	fd, err := mountGroups(controllers)
	if err != nil {
		return nil, fmt.Errorf("%w: mount them: %w", errNoGroups, err)
	}
	return &groups{root: os.NewFile(uintptr(fd), "CPU cgroups")}, nil
}

func mountGroups(controllers []string) (int, error) {
	f, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(f)
	for _, c := range controllers {
		if err := unix.FsconfigSetFlag(f, c); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(f); err != nil {
		return -1, err
	}
	return unix.Fsmount(f, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// parseGroup finds in the text of /proc/PID/cgroup (cgroups(7)) the line of the
// CPU controller: the controllers of its hierarchy, and the process's group. It
// is not ok if there is none, or the group is out of sight.
func parseGroup(b []byte) (controllers []string, group string, ok bool) {
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		controllers = strings.Split(f[1], ",")
		if slices.Contains(controllers, "cpu") {
			group = f[2]
			return controllers, group, path.IsAbs(group) && path.Clean(group) == group && !strings.HasPrefix(group, "/..")
		}
	}
	return nil, "", false
}

func (g *groups) close() error {
	if g == nil {
		return nil
	}
	return g.root.Close()
}

// file returns where a file of a group is.
func (g *groups) file(group, name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(g.root.Fd())), group, name)
}

// groupPrefix begins the names of groups of ours; the number and the start of the
// actuator's process follow, and what tells its groups apart.
const groupPrefix = "junction-idle-"

// isOurs reads whose a group is from its name.
func isOurs(name string) (pid int, started uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, groupPrefix)
	f := strings.Split(rest, "-")
	if !ok || len(f) != 3 {
		return 0, 0, false
	}
	pid, err1 := strconv.Atoi(f[0])
	started, err2 := strconv.ParseUint(f[1], 10, 64)
	return pid, started, err1 == nil && err2 == nil && pid > 0
}

// make makes a group for a process, below the one that it is in. Nobody is in it
// yet, and it is not idle. unique tells it from others of this process.
func (g *groups) make(pid int, unique uint64) (group string, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", notThere(pid, err)
	}
	_, home, ok := parseGroup(b)
	if !ok {
		return "", fmt.Errorf("%w: process %d is in none that can be seen", errNoGroups, pid)
	}
	if _, _, ours := isOurs(path.Base(home)); ours { // it is just being moved out of it
		home = path.Dir(home)
	}
	self, err := readStatAlone(os.Getpid())
	if err != nil {
		return "", err
	}
	group = path.Join(home, fmt.Sprintf("%s%d-%d-%d", groupPrefix, os.Getpid(), self.started, unique))
	return group, os.Mkdir(g.file(group, ""), 0o755)
}

// setIdle says whether a group has only what nobody outside of it wants. It takes
// effect at once, as moving processes does not.
func (g *groups) setIdle(group string, idle bool) error {
	v := "0"
	if idle {
		v = "1"
	}
	return os.WriteFile(g.file(group, "cpu.idle"), []byte(v), 0)
}

// take moves a process and its descendants into a group.
func (g *groups) take(group string, pid int, started uint64) error {
	g.moving.Lock()
	defer g.moving.Unlock()
	return eachOf(func() []int {
		if s, err := readStatAlone(pid); err != nil || s.started != started {
			return nil // it has ended, and its number may be somebody else's
		}
		return allProcesses(pid, nil)
	}, func(pid int) error { return g.enter(group, pid) })
}

func (g *groups) enter(group string, pid int) error {
	return os.WriteFile(g.file(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// end moves all processes of a group to the one that it lies in, and removes it.
// While some of them are just ending it fails with unix.EBUSY.
func (g *groups) end(group string) error {
	err := g.setIdle(group, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, g.empty(group), os.Remove(g.file(group, "")))
}

func (g *groups) empty(group string) error {
	g.moving.Lock()
	defer g.moving.Unlock()
	return eachOf(func() (all []int) {
		b, _ := os.ReadFile(g.file(group, "cgroup.procs")) // none if it is gone
		for text := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(text); err == nil {
				all = append(all, pid)
			}
		}
		return all
	}, func(pid int) error { return g.enter(path.Dir(group), pid) })
}

// sweep ends groups below another one whose actuator has ended and whose guard did
// not do so. It does not look into those of the living.
func (g *groups) sweep(below string) error {
	var errs []error
	top := g.file(below, "") + "/." // not the symbolic link
	_ = filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || at == top {
			return nil // it may have gone meanwhile
		}
		if pid, started, ok := isOurs(d.Name()); ok {
			if s, err := readStatAlone(pid); err != nil || s.started != started {
				errs = append(errs, g.end(path.Join(below, strings.TrimPrefix(at, path.Clean(top)))))
			}
			return fs.SkipDir
		}
		return nil
	})
	return errors.Join(errs...)
}

// regroup has an instance that is best effort lie in an idle group, where there are
// any. The guard hears of the group first.
// +checklocks:a.mu
func (a *Actuator) regroup(i *inst) {
	if a.groups == nil || i.Class != cs.BestEffort {
		return
	}
	a.groupsMade++
	group, err := a.groups.make(i.PID, a.groupsMade)
	if err == nil {
		if err = a.fill(group, i); err != nil {
			err = errors.Join(err, a.groups.end(group), a.guard.tell(&note{Ungroup: group}))
		}
	}
	if err != nil {
		a.opts.Logger.Warn("best effort is only SCHED_IDLE", "instance", i.Name, "error", err)
		return
	}
	i.group = group
}

// fill moves an instance into a new group. Before Linux 5.15 none can be idle.
// +checklocks:a.mu
func (a *Actuator) fill(group string, i *inst) error {
	if err := a.guard.tell(&note{Group: group}); err != nil {
		return err
	}
	if err := a.groups.setIdle(group, false); err != nil {
		return err
	}
	return a.groups.take(group, i.PID, i.started)
}

// groupEnds is for how long processes of a group may take to end.
const groupEnds = 30 * time.Second

// endGroup removes the group of an instance that has left. It is not idle any more.
// Nothing tells when the last of its processes has come to its end. If the actuator
// ends meanwhile that is for the guard to wait for.
func (a *Actuator) endGroup(i *inst) {
	if i.group == "" {
		return
	}
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	err := a.groups.end(i.group)
	for end := time.Now().Add(groupEnds); errors.Is(err, unix.EBUSY) && time.Now().Before(end); err = a.groups.end(i.group) {
		select {
		case <-tick.C:
		case <-a.done:
			return
		}
	}
	if err != nil {
		a.opts.Logger.Warn("remove an instance's CPU cgroup", "instance", i.Name, "cgroup", i.group, "error", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.guard.tell(&note{Ungroup: i.group}); err != nil {
		a.opts.Logger.Warn("the guard does not hear", "error", err)
	}
}
