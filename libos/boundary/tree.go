package boundary

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is a file tree of an instance's host directories and nothing else, as
// the root directory of the instance's process. A nil Tree is the host's.
type Tree struct {
	base int // its root directory; -1 when entered
	// namespace keeps the mounts of the tree, which no thread is in.
	namespace int
	writable  map[string]string
}

// ErrPrivilege: the process may not make mounts, so its files are confined by
// the user's rights only.
var ErrPrivilege = errors.New("needs CAP_SYS_ADMIN and CAP_SYS_CHROOT")

// Places in the tree. The process finds its own /proc/self as before.
const (
	rootPlace     = "root"
	writablePlace = "rw"
	selfPlace     = "proc/self"
)

// NewTree makes a tree of root, which cannot be written through it, and of
// directories that can. Neither leads to devices, and root not to file systems
// of the kernel such as /proc, wherever they are mounted. What is mounted on
// the host later is not seen.
func NewTree(root string, writable []string) (*Tree, error) {
	if !has(unix.CAP_SYS_ADMIN) || !has(unix.CAP_SYS_CHROOT) {
		return nil, ErrPrivilege
	}
	t := &Tree{base: -1, namespace: -1, writable: make(map[string]string)}
	if err := elsewhere(func() error { return t.build(root, writable) }); err != nil {
		t.Close()
		return nil, fmt.Errorf("boundary: confining files: %w", err)
	}
	return t, nil
}

// elsewhere calls f on a thread that ends afterwards, because f takes it into
// another mount namespace. The process's first thread cannot end.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			done <- elsewhere(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// build makes the tree in a mount namespace of its own, whose other mounts are
// copies that nobody reaches.
func (t *Tree) build(root string, writable []string) (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if t.namespace, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("holding the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	trees, err := t.copies(root, writable)
	defer func() {
		for _, c := range trees {
			unix.Close(c.fd)
		}
	}()
	if err != nil {
		return err
	}
	if err := t.mountBase(); err != nil {
		return err
	}
	for _, c := range trees {
		if err := c.mount(t.base); err != nil {
			return err
		}
	}
	return seal(t.base, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOEXEC, 0)
}

// subtree is a copy of mounts that is not mounted yet.
type subtree struct {
	fd    int
	place string // in the tree
	attrs uint64 // MOUNT_ATTR_*
}

// copies copies the mounts that the tree consists of, root without those of
// the kernel's file systems.
func (t *Tree) copies(root string, writable []string) (trees []subtree, err error) {
	add := func(dir, place string, attrs uint64) error {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("copying the mounts of %s: %w", dir, err)
		}
		trees = append(trees, subtree{fd, place, attrs})
		return nil
	}
	if err := add("/proc/self", selfPlace, unix.MOUNT_ATTR_RDONLY); err != nil {
		return trees, err
	}
	for i, dir := range writable {
		place := filepath.Join(writablePlace, strconv.Itoa(i))
		if err := add(dir, place, 0); err != nil {
			return trees, err
		}
		t.writable[dir] = "/" + place
	}
	if err := detachKernelMounts(root); err != nil {
		return trees, err
	}
	return trees, add(root, rootPlace, unix.MOUNT_ATTR_RDONLY)
}

// detachKernelMounts unmounts what the kernel shows of itself below dir.
func detachKernelMounts(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	list, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("listing mounts: %w", err)
	}
	defer list.Close()
	points, err := kernelMounts(list, dir)
	if err != nil {
		return err
	}
	for _, point := range points {
		// EINVAL: it went with the mount above it.
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", point, err)
		}
	}
	return nil
}

// mountBase mounts an empty file system, which the tree is built in, over the
// root of the namespace.
func (t *Tree) mountBase() error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making a tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("making a tmpfs: %w", err)
	}
	if t.base, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return fmt.Errorf("making a tmpfs: %w", err)
	}
	if err := unix.MoveMount(t.base, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	return nil
}

// mount mounts c at its place below base.
func (c subtree) mount(base int) error {
	for dir := range parents(c.place) {
		if err := unix.Mkdirat(base, dir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	}
	if err := seal(c.fd, c.attrs, unix.AT_RECURSIVE); err != nil {
		return err
	}
	if err := unix.MoveMount(c.fd, "", base, c.place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting %s: %w", c.place, err)
	}
	return nil
}

// seal sets attributes of a mount; flags say whether also of those below it.
func seal(fd int, attrs uint64, flags uint) error {
	attr := &unix.MountAttr{Attr_set: attrs | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, attr); err != nil {
		return fmt.Errorf("setting mount attributes: %w", err)
	}
	return nil
}

// Enter makes the tree the root of this process, once.
func (t *Tree) Enter() error {
	if t == nil {
		return nil
	}
	_, _ = time.Now().Zone() // reads the time zone now, of which logs make use
	if err := unix.Fchdir(t.base); err != nil {
		return fmt.Errorf("boundary: entering the instance's files: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("boundary: entering the instance's files: %w", err)
	}
	unix.Close(t.base)
	t.base = -1
	return nil
}

// Close frees a tree that is not entered.
func (t *Tree) Close() {
	for _, fd := range []int{t.base, t.namespace} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	t.base, t.namespace = -1, -1
}

// Root returns where the process finds the root directory host.
func (t *Tree) Root(host string) string {
	if t == nil {
		return host
	}
	return "/" + rootPlace
}

// Writable returns where the process finds the writable directory host.
func (t *Tree) Writable(host string) string {
	if t == nil {
		return host
	}
	return t.writable[host]
}
