package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` looks for named namespaces (ip-netns(8)).
const netnsDir = "/run/netns"

// nameNamespace gives the calling thread's network namespace a name.
func nameNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of named namespaces: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("name the namespace: %w", err)
	}
	_ = f.Close() // nothing was written
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("mount the namespace on %s: %w", path, err)
	}
	return nil
}

// unnameNamespace takes the name away. That there is none is no error.
//
// It does so in a mount namespace of its own. `ip netns` mounts netnsDir on
// itself, with all that is in it, and so hides names mounted before from
// unmounting, while they keep their files from being removed. Where nothing is
// mounted on a file it can be removed, and with it go the mounts on it
// everywhere else.
func unnameNamespace(path string) error {
	t, err := newThread(func() error {
		if err := ownMounts(unix.MS_PRIVATE); err != nil {
			return err
		}
		return removeName(path)
	})
	if err != nil {
		return fmt.Errorf("remove the name of a namespace: %w", err)
	}
	t.stop()
	return nil
}

// removeName removes a file and all mounts on it, and on its folder, that the
// calling thread sees.
func removeName(path string) error {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Dir(path), err)
	}
	defer unix.Close(dir)
	for {
		for unmount(path) == nil {
		}
		err := unix.Unlinkat(dir, filepath.Base(path), 0)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || unmount(filepath.Dir(path)) != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
}

func unmount(path string) error {
	return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

// ownMounts gives the calling thread a mount namespace, whose mounts are not
// seen elsewhere. With MS_SLAVE mounts made elsewhere are seen in it.
func ownMounts(propagation uintptr) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", propagation|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mounts our own: %w", err)
	}
	return nil
}

// withOwnSysfs runs f while the calling thread is in a mount namespace that is
// like home, but for /sys, which shows the thread's network namespace: a sysfs
// shows that of whoever mounted it. Programs started by f stay there.
func withOwnSysfs(home *os.File, f func() error) error {
	err := ownSysfs()
	if err == nil {
		err = f()
	}
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNS); back != nil {
		err = errors.Join(err, fmt.Errorf("return to the common mount namespace: %w", back))
	}
	return err
}

// ownSysfs gives the calling thread a mount namespace with a /sys of its own.
// Mounts shared by the administrator are still seen when made later, ours are not
// seen elsewhere. What is mounted below /sys (cgroups, BPF) stays there.
func ownSysfs() error {
	if err := ownMounts(unix.MS_SLAVE); err != nil {
		return err
	}
	below, err := mountsBelow("/sys")
	if err != nil {
		return err
	}
	kept, err := cloneMounts(below)
	defer kept.close()
	if err != nil {
		return err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount the namespace's /sys: %w", err)
	}
	return kept.attach()
}

// mounts are detached copies of mounts and where they belong.
type mounts map[string]int

func cloneMounts(paths []string) (mounts, error) {
	m := mounts{}
	for _, p := range paths {
		fd, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return m, fmt.Errorf("copy the mount %s: %w", p, err)
		}
		m[p] = fd
	}
	return m, nil
}

func (m mounts) attach() error {
	for p, fd := range m {
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, p, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount %s again: %w", p, err)
		}
	}
	return nil
}

func (m mounts) close() {
	for _, fd := range m {
		_ = unix.Close(fd)
	}
}

// mountsBelow lists the topmost mount points below dir that the calling thread
// sees.
func mountsBelow(dir string) ([]string, error) {
	list, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return topmostBelow(list, dir), nil
}

// topmostBelow is mountsBelow for a list in which parents come before what is
// mounted on them, as in proc_pid_mountinfo(5).
func topmostBelow(list []*mountinfo.Info, dir string) (found []string) {
	for _, m := range list {
		if strings.HasPrefix(m.Mountpoint, dir+"/") && !coveredBy(found, m.Mountpoint) {
			found = append(found, m.Mountpoint)
		}
	}
	return found
}

func coveredBy(dirs []string, path string) bool {
	for _, d := range dirs {
		if path == d || strings.HasPrefix(path, d+"/") {
			return true
		}
	}
	return false
}
