package libos

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/host"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"junction/internal/samefile"
)

// stdio is what an instance's first program gets as descriptors 0, 1 and 2.
type stdio struct {
	// fds is the table to begin with, nil once it is the program's.
	fds *kernel.FDTable
	// tty is the terminal among them that becomes the controlling terminal, or nil.
	tty *host.TTYFileDescription
	// imported holds one entry per host file (two descriptors may share one).
	imported []importedFile
}

// importedFile is a host file and the instance's file for it.
type importedFile struct {
	host int
	fd   *vfs.FileDescription
	// flags are the host file's status flags before it was made to append; -1: it was not.
	flags int
}

// duplicateStdio duplicates files. Those that are one file on the host (2>&1, or
// one terminal) become one duplicate; nil entries -1.
func duplicateStdio(files [3]*os.File) (fds [3]int, err error) {
	fds = [3]int{-1, -1, -1}
	for n, f := range files {
		if f == nil {
			continue
		}
		for m, g := range files[:n] {
			if g != nil && samefile.Same(g, f) {
				fds[n] = fds[m]
			}
		}
		if fds[n] >= 0 {
			continue
		}
		if fds[n], err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			closeStdio(fds)
			return fds, fmt.Errorf("duplicating descriptor %d (%s): %w", n, f.Name(), err)
		}
	}
	return fds, nil
}

// closeStdio closes files, of which two may be one.
func closeStdio(fds [3]int) {
	for n, fd := range fds {
		if fd >= 0 && !slices.Contains(fds[:n], fd) {
			unix.Close(fd)
		}
	}
}

// importStdio imports host files, which become its own, also when it fails. What
// is one descriptor is one file in the instance, with one offset and one
// foreground process group; -1 stays closed. With logs, this process writes to
// what is standard error too.
func importStdio(ctx context.Context, k *kernel.Kernel, files [3]int, logs bool, owner *auth.Credentials) (*stdio, error) {
	s := &stdio{fds: k.NewFDTable()}
	for n, hostFD := range files {
		if hostFD < 0 {
			continue
		}
		fd := s.find(hostFD)
		if fd == nil {
			var err error
			if fd, err = s.importFile(ctx, k, hostFD, n, logs && hostFD == files[2], owner); err != nil {
				rest := files
				for i, f := range rest {
					if s.find(f) != nil {
						rest[i] = -1
					}
				}
				closeStdio(rest)
				s.release(ctx)
				return nil, fmt.Errorf("importing descriptor %d: %w", n, err)
			}
		}
		if _, err := s.fds.NewFDAt(ctx, int32(n), fd, kernel.FDFlags{}); err != nil {
			s.release(ctx) // NewFDAt cannot fail: the table is empty there
			return nil, fmt.Errorf("installing descriptor %d: %w", n, err)
		}
	}
	return s, nil
}

// find returns the file already imported for a host file, or nil.
func (s *stdio) find(hostFD int) *vfs.FileDescription {
	for _, i := range s.imported {
		if i.host == hostFD {
			return i.fd
		}
	}
	return nil
}

// importFile makes a file of the instance out of hostFD. A regular file that
// this process writes to, too, is made to append while the instance runs: inside
// and outside each have an offset of their own. When it fails, hostFD is still
// the caller's.
func (s *stdio) importFile(ctx context.Context, k *kernel.Kernel, hostFD, n int, shared bool, owner *auth.Credentials) (*vfs.FileDescription, error) {
	file := importedFile{host: hostFD, flags: -1}
	if shared && isRegular(hostFD) {
		flags, err := unix.FcntlInt(uintptr(hostFD), unix.F_GETFL, 0)
		if err != nil {
			return nil, err
		}
		if _, err := unix.FcntlInt(uintptr(hostFD), unix.F_SETFL, flags|unix.O_APPEND); err != nil {
			return nil, err
		}
		file.flags = flags
	}
	isTTY := host.IsTTY(hostFD)
	fd, err := host.NewFD(ctx, k.HostMount(), hostFD, &host.NewFDOptions{
		Savable:      true,
		Restorable:   true,
		RestoreKey:   host.MakeResourceID("", n),
		IsTTY:        isTTY,
		VirtualOwner: true,
		UID:          owner.EffectiveKUID,
		GID:          owner.EffectiveKGID,
	})
	if err != nil {
		return nil, err
	}
	if offset, err := unix.Seek(hostFD, 0, unix.SEEK_CUR); err == nil {
		// The Sentry keeps an offset of its own, which starts at 0. It can be set
		// to whatever the host's is.
		_, _ = fd.Seek(ctx, offset, linux.SEEK_SET)
	}
	if isTTY && s.tty == nil {
		s.tty = fd.Impl().(*host.TTYFileDescription)
	}
	file.fd = fd
	s.imported = append(s.imported, file)
	return fd, nil
}

// finish moves the host files' offsets on to where the program left its own,
// so that the next reader or writer of a redirected file continues there.
func (s *stdio) finish(ctx context.Context) {
	for _, i := range s.imported {
		if !isRegular(i.host) {
			continue
		}
		if i.flags >= 0 {
			unix.FcntlInt(uintptr(i.host), unix.F_SETFL, i.flags)
		}
		outside, err := unix.Seek(i.host, 0, unix.SEEK_CUR)
		if err != nil {
			continue
		}
		if inside, err := i.fd.Seek(ctx, 0, linux.SEEK_CUR); err == nil && inside > outside {
			unix.Seek(i.host, inside, unix.SEEK_SET)
		}
	}
}

// signalForeground signals the foreground process group of the terminal, and
// tells whether there is one.
func (s *stdio) signalForeground(k *kernel.Kernel, info *linux.SignalInfo) (bool, error) {
	if s.tty == nil {
		return false, nil
	}
	tg := s.tty.ThreadGroup()
	if tg == nil {
		return false, nil
	}
	pg, _ := tg.ForegroundProcessGroup(s.tty.TTY())
	if pg == nil {
		return false, nil
	}
	return true, k.SendExternalSignalProcessGroup(pg, info)
}

func isRegular(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// handOver leaves the table of descriptors to the program, whose last task closes
// at its end what is open there. Some files, netlink sockets for one, can be
// closed by a task only.
func (s *stdio) handOver(ctx context.Context) {
	s.fds.DecRef(ctx)
	s.fds = nil
}

func (s *stdio) release(ctx context.Context) {
	for _, i := range s.imported {
		i.fd.DecRef(ctx)
	}
	s.imported = nil
	if s.fds != nil {
		s.fds.DecRef(ctx)
	}
}
