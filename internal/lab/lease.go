package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// leaseDir holds one file for each lab, locked by its owner, and one that is
// locked while the others are made or swept.
const (
	leaseDir    = "/run/junction-lab"
	leaseSuffix = ".lock"
	sweepLock   = "sweep"
	namePrefix  = "jx"
)

// sequence numbers the labs of this process.
var sequence atomic.Uint64

// lease is the right to a lab's name. It ends with its owner, because the kernel
// releases the file lock when the last descriptor of the open file is closed.
type lease struct {
	name string
	file *os.File
}

// newLease sweeps, and takes a name that nobody has.
func newLease() (l *lease, err error) {
	err = alone(func() error {
		if err := sweep(); err != nil {
			return err
		}
		l, err = takeLease()
		return err
	})
	return l, err
}

// takeLease runs alone, so nobody sees the file before it is locked.
func takeLease() (*lease, error) {
	for {
		name := fmt.Sprintf("%s%d-%d", namePrefix, os.Getpid(), sequence.Add(1))
		f, err := os.OpenFile(leasePath(name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue // of a process with our number in another pid namespace
		}
		if err != nil {
			return nil, fmt.Errorf("lab: lease: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return nil, errors.Join(fmt.Errorf("lab: lock %s: %w", f.Name(), err), f.Close())
		}
		return &lease{name: name, file: f}, nil
	}
}

func leasePath(name string) string { return filepath.Join(leaseDir, name+leaseSuffix) }

// release gives the name back. The lab must be gone.
func (l *lease) release() error {
	return errors.Join(os.Remove(l.file.Name()), l.file.Close())
}

// alone runs f while no other process or goroutine is in here.
func alone(f func() error) error {
	if err := os.MkdirAll(leaseDir, 0o700); err != nil {
		return fmt.Errorf("lab: folder of the leases (needs root): %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(leaseDir, sweepLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lab: leases: %w", err)
	}
	defer lock.Close()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err == nil {
			return f()
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lab: lock %s: %w", lock.Name(), err)
		}
	}
}

// Sweep removes the labs whose owners are dead: the processes in their
// namespaces, their links, their names. New calls it first. Labs in use, by this
// process or another, are left alone.
func Sweep() error { return alone(sweep) }

func sweep() error {
	files, err := filepath.Glob(filepath.Join(leaseDir, namePrefix+"*"+leaseSuffix))
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		errs = append(errs, sweepLease(f))
	}
	return errors.Join(errs...)
}

// sweepLease removes a lab if nobody holds its lease.
func sweepLease(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // closed meanwhile
	}
	if err != nil {
		return fmt.Errorf("lab: sweep: %w", err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil // its owner lives
	}
	if err != nil {
		return fmt.Errorf("lab: sweep: lock %s: %w", path, err)
	}
	if err := sweepNamespaces(strings.TrimSuffix(filepath.Base(path), leaseSuffix)); err != nil {
		return fmt.Errorf("lab: sweep: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("lab: sweep: %w", err)
	}
	return nil
}

func sweepNamespaces(lab string) error {
	paths, err := filepath.Glob(filepath.Join(netnsDir, lab+"-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range paths {
		errs = append(errs, sweepNamespace(p))
	}
	return errors.Join(errs...)
}

// sweepNamespace removes a dead owner's namespace. After a reboot its name may
// be an ordinary file.
func sweepNamespace(path string) error {
	id, ok := namespaceID(path)
	if !ok {
		return unnameNamespace(path)
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	n := &Namespace{name: filepath.Base(path), id: id, handle: h}
	return n.close()
}

// namespaceID returns a named namespace's identity as /proc/PID/ns/net shows it.
func namespaceID(path string) (string, bool) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC || unix.Stat(path, &st) != nil {
		return "", false
	}
	return fmt.Sprintf("net:[%d]", st.Ino), true
}
