package nic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Take finds a NIC that may be used and takes the lease on it.
func Take(ctx context.Context, name string, logger *slog.Logger) (*Link, error) {
	l, err := Find(name, logger)
	if err != nil {
		return nil, err
	}
	if err = l.Usable(); err == nil {
		err = l.Acquire(ctx)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Acquire makes this process the only holder of the NIC among those that use
// this package: it binds an abstract Unix socket named after the NIC, which
// belongs to the network namespace (unix(7)) and disappears with the process,
// however that ends. It must run in the NIC's namespace.
func (l *Link) Acquire(ctx context.Context) error {
	name := fmt.Sprintf("@junction/nic/%d", l.Attrs().Index)
	err := Retry(ctx, func() error { return l.bindLease(name) })
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("%w%w", l.InUse(leaseHolder(name)), quiet{err})
	}
	return err
}

func (l *Link) bindLease(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
			l.lease = fd
			return nil
		}
		_ = unix.Close(fd)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return ErrInUse
	}
	return fmt.Errorf("make the lease of %s: %w", l.Name(), err)
}

// quiet keeps an error in a chain without its text.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

func (l *Link) release() {
	if l.lease >= 0 {
		_ = unix.Close(l.lease)
		l.lease = -1
	}
}

// leaseHolder returns the process that has the Unix socket name of the calling
// thread's network namespace, 0 if it cannot be found.
func leaseHolder(name string) int {
	sockets, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(sockets)) {
		f := strings.Fields(line) // Num RefCount Protocol Flags Type St Inode Path
		if len(f) == 8 && f[7] == name {
			return holderOfSocket(f[6])
		}
	}
	return 0
}

func holderOfSocket(inode string) int {
	for _, pid := range processes() {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, e := range entries {
			if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && to == "socket:["+inode+"]" {
				return pid
			}
		}
	}
	return 0
}

// InUse returns an ErrInUse that names the process pid, if it is known (not 0).
func (l *Link) InUse(pid int) error {
	advice := "stop its holder or use another NIC"
	if pid == 0 {
		return fmt.Errorf("%w: %s; %s", ErrInUse, l.Name(), advice)
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		comm = []byte("process")
	}
	return fmt.Errorf("%w: %s is held by %s (pid %d); %s", ErrInUse, l.Name(), strings.TrimSpace(string(comm)), pid, advice)
}

// settle is how long Retry tries: the kernel frees the queues of a killed
// process 17 to 24 ms after its end, and tells nobody when.
const settle = time.Second

// Retry calls try until it returns anything but ErrInUse, with growing pauses
// for about a second.
func Retry(ctx context.Context, try func() error) error {
	end := time.Now().Add(settle)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := try()
		if !errors.Is(err, ErrInUse) || time.Now().Add(pause).After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; gave up waiting: %w", err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// HolderByFDInfo returns a process with a file descriptor of which
// /proc/PID/fdinfo (proc(5)) has the line "key:<tab>value"; 0 if there is none. Of
// several, as a NIC's name may be another one's in another network namespace, it is
// one with a thread in the caller's.
func HolderByFDInfo(key, value string) (holder int) {
	want, here := key+":\t"+value, namespaceOf("thread-self")
	for _, pid := range processes() {
		if !hasDescriptor(pid, want) {
			continue
		}
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if slices.ContainsFunc(threads, func(dir string) bool { return namespaceOf(strings.TrimPrefix(dir, "/proc/")) == here }) {
			return pid
		}
		holder = cmp.Or(holder, pid)
	}
	return holder
}

func hasDescriptor(pid int, want string) bool {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return hasLine(dir+"/"+e.Name(), want) })
}

// namespaceOf names the network namespace of a task, by its folder in /proc; empty
// if it has ended.
func namespaceOf(task string) string {
	name, _ := os.Readlink("/proc/" + task + "/ns/net")
	return name
}

func hasLine(path, want string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if strings.TrimRight(line, "\n") == want {
			return true
		}
	}
	return false
}

func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
