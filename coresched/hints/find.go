package hints

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxDescriptors is among how many of a process's descriptors a table is looked
// for: who has more makes it first.
const maxDescriptors = 1024

// Find opens the table of a process, or returns ErrNone. where is the descriptor
// that the process has it at, for Has.
func Find(pid int) (r *Reader, where string, err error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return nil, "", errors.Join(ErrNone, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxDescriptors)
	if err != nil {
		return nil, "", errors.Join(ErrNone, err)
	}
	for _, n := range names {
		if where = dir.Name() + "/" + n; Has(where) {
			r, err = openAt(where)
			return r, where, err
		}
	}
	return nil, "", fmt.Errorf("%w: %d", ErrNone, pid)
}

// Has tells whether a process has something that is called a table at one of
// its descriptors.
func Has(where string) bool {
	link, err := os.Readlink(where)
	return err == nil && link == "/memfd:"+name+" (deleted)"
}

// openAt opens what only bears the name of a table so far. It may be any file of
// a process that is not trusted, on a file system of its own making: it is not
// opened, and the file system is not asked about it, before it is known to be
// of the kernel's own, of memfds.
func openAt(where string) (*Reader, error) {
	path, err := unix.Open(where, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", where, err)
	}
	defer unix.Close(path)
	want, err := memfds()
	if err != nil {
		return nil, err
	}
	got, err := deviceOf(path)
	if err != nil || got != want {
		return nil, fmt.Errorf("%w: %s is no memfd", errors.Join(ErrTable, err), where)
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(path), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", where, err)
	}
	return Open(fd)
}

type device struct{ major, minor uint32 }

// deviceOf asks for nothing that a file system would have to be asked for.
func deviceOf(fd int) (device, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st)
	return device{st.Dev_major, st.Dev_minor}, err
}

// memfds returns the device of all memfds.
func memfds() (device, error) {
	fd, err := unix.MemfdCreate("junction-device", unix.MFD_CLOEXEC)
	if err != nil {
		return device{}, fmt.Errorf("make a memfd: %w", err)
	}
	defer unix.Close(fd)
	return deviceOf(fd)
}
