package live

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// ErrExclusive is returned, wrapped, when cores cannot be kept for an enclave.
var ErrExclusive = errors.New("cores cannot be kept for an enclave alone")

// home is the cpuset of cgroup v1, cpuset(7), below which cores are kept for
// enclaves. Tasks of it are kept off them.
type home struct {
	dir  string // its folder
	path string // as /proc/PID/cpuset has it
}

// Files of a cpuset's folder.
const (
	cpusFile      = "cpuset.cpus"
	memsFile      = "cpuset.mems"
	exclusiveFile = "cpuset.cpu_exclusive"
	tasksFile     = "tasks"
)

// findHome finds the cpuset whose folder is dir; if that is empty, the one in which
// this process lies, or lay before somebody kept cores from it.
func findHome(dir string) (h home, err error) {
	groups, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup"))
	if err != nil {
		return h, fmt.Errorf("list mounts: %w", err)
	}
	point, root, ok := cpusetMount(groups)
	if !ok {
		return h, fmt.Errorf("%w: cgroup v1's cpuset controller is not mounted here (mount -t cgroup -o cpuset; ip netns exec hides it, nsenter --net does not); partitions of cgroup v2 are not supported", ErrExclusive)
	}
	if dir != "" {
		rel, err := filepath.Rel(point, dir)
		if err != nil || strings.HasPrefix(rel, "..") {
			return h, fmt.Errorf("%w: %s is no cpuset below %s", ErrExclusive, dir, point)
		}
		return home{dir, path.Join(root, rel)}, nil
	}
	own, err := cpusetOf(os.Getpid())
	if err != nil {
		return h, err
	}
	if ownedBy(path.Base(own)) != "" {
		own = path.Dir(own)
	}
	rel, err := filepath.Rel(root, own)
	if err != nil || strings.HasPrefix(rel, "..") {
		return h, fmt.Errorf("%w: this process's cpuset %s is not below %s, which is mounted", ErrExclusive, own, root)
	}
	return home{filepath.Join(point, rel), own}, nil
}

// cpusetMount finds among mounts of cgroup v1 where the cpuset controller is, and
// what of it.
func cpusetMount(groups []*mountinfo.Info) (point, root string, ok bool) {
	for _, g := range groups {
		if slices.Contains(strings.Split(g.VFSOptions, ","), "cpuset") {
			return g.Mountpoint, g.Root, true
		}
	}
	return "", "", false
}

// cpusetOf returns the path of a task's cpuset.
func cpusetOf(tid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cpuset", tid))
	return strings.TrimSuffix(string(b), "\n"), err
}

// cpus returns a cpuset's cores.
func cpusOf(dir string) (cs.CPUSet, error) {
	return readCPUs(filepath.Join(dir, cpusFile))
}

// readCPUs reads a file of the kernel that lists cores.
func readCPUs(file string) (cs.CPUSet, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return cs.CPUSet{}, err
	}
	return cs.ParseCPUSet(strings.TrimSpace(string(text)))
}

func setFile(dir, name, value string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(value), 0)
}

// ensureSet makes a cpuset be there, with cores, and to nobody else if exclusive.
func (h *home) ensureSet(dir string, cpus cs.CPUSet, exclusive bool) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	mems, err := os.ReadFile(filepath.Join(h.dir, memsFile))
	if err != nil {
		return err
	}
	err = errors.Join(setFile(dir, memsFile, strings.TrimSpace(string(mems))), setFile(dir, cpusFile, cpus.String()))
	if err == nil && exclusive {
		err = setFile(dir, exclusiveFile, "1")
	}
	return err
}

// check refuses where cores cannot be kept.
func (h *home) check() error {
	if err := remembersMasks(); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(h.dir, exclusiveFile))
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(b)) != "1" {
		return fmt.Errorf("%w: others than the tasks of cpuset %s use its cores; make it exclusive (%s)", ErrExclusive, h.path, filepath.Join(h.dir, exclusiveFile))
	}
	return nil
}

// overlaps refuses cores that another cpuset beside ours has: its tasks stay there.
func (h *home) overlaps(cpus *cs.CPUSet, owner string) error {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || ownedBy(e.Name()) == owner {
			continue
		}
		theirs, err := cpusOf(filepath.Join(h.dir, e.Name()))
		for c := range cpus {
			if err == nil && theirs[c]&cpus[c] != 0 {
				return fmt.Errorf("%w: cpuset %s has cores %s; take these away from it first", ErrExclusive, path.Join(h.path, e.Name()), theirs)
			}
		}
	}
	return nil
}

// remembersMasks refuses kernels that forget, when a cpuset narrows which cores a
// thread may use, which ones it may use else: those before Linux 6.2.
func remembersMasks() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	var major, minor int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 2 {
		return fmt.Errorf("%w: Linux %s forgets the affinity of threads in cpusets; it needs 6.2", ErrExclusive, release)
	}
	return nil
}
