package libos

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/host"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// stdio is what an instance's first program gets as descriptors 0, 1 and 2.
type stdio struct {
	fds *kernel.FDTable
	// tty is the terminal among them that becomes the controlling terminal, or nil.
	tty *host.TTYFileDescription
	// imported holds one entry per host file (two descriptors may share one).
	imported []importedFile
}

// importedFile is a host file and the instance's file for it.
type importedFile struct {
	host *os.File
	fd   *vfs.FileDescription
	// flags are the host file's status flags before it was made to append.
	flags int
}

// importStdio imports duplicates of host files; nil entries stay closed.
// Descriptors that are one file on the host (2>&1, or one terminal) are one
// file in the instance, with one offset and one foreground process group.
func importStdio(ctx context.Context, k *kernel.Kernel, files [3]*os.File, uid auth.KUID, gid auth.KGID) (*stdio, error) {
	s := &stdio{fds: k.NewFDTable()}
	for n, f := range files {
		if f == nil {
			continue
		}
		fd := s.find(f)
		if fd == nil {
			var err error
			// The libOS's own log may go to standard error too.
			shared := files[2] != nil && sameFile(f, files[2])
			if fd, err = s.importFile(ctx, k, f, n, shared, uid, gid); err != nil {
				s.release(ctx)
				return nil, fmt.Errorf("importing descriptor %d (%s): %w", n, f.Name(), err)
			}
		}
		if _, err := s.fds.NewFDAt(ctx, int32(n), fd, kernel.FDFlags{}); err != nil {
			s.release(ctx)
			return nil, fmt.Errorf("installing descriptor %d: %w", n, err)
		}
	}
	return s, nil
}

// find returns the file already imported for the host file behind f, or nil.
func (s *stdio) find(f *os.File) *vfs.FileDescription {
	for _, i := range s.imported {
		if sameFile(i.host, f) {
			return i.fd
		}
	}
	return nil
}

// importFile makes a file of the instance out of a duplicate of f. A regular
// file that both the program and this process write to is made to append while
// the instance runs: inside and outside each have an offset of their own.
func (s *stdio) importFile(ctx context.Context, k *kernel.Kernel, f *os.File, n int, shared bool, uid auth.KUID, gid auth.KGID) (*vfs.FileDescription, error) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return nil, err
	}
	if shared && isRegular(f) {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_APPEND); err != nil {
			return nil, err
		}
	}
	hostFD, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	isTTY := host.IsTTY(hostFD)
	fd, err := host.NewFD(ctx, k.HostMount(), hostFD, &host.NewFDOptions{
		Savable:      true,
		Restorable:   true,
		RestoreKey:   host.MakeResourceID("", n),
		IsTTY:        isTTY,
		VirtualOwner: true,
		UID:          uid,
		GID:          gid,
	})
	if err != nil {
		unix.Close(hostFD)
		return nil, err
	}
	if offset, err := unix.Seek(hostFD, 0, unix.SEEK_CUR); err == nil {
		// The Sentry keeps an offset of its own, which starts at 0.
		if _, err := fd.Seek(ctx, offset, linux.SEEK_SET); err != nil {
			return nil, err
		}
	}
	if isTTY && s.tty == nil {
		s.tty = fd.Impl().(*host.TTYFileDescription)
	}
	s.imported = append(s.imported, importedFile{f, fd, flags})
	return fd, nil
}

// finish moves the host files' offsets on to where the program left its own,
// so that the next reader or writer of a redirected file continues there.
func (s *stdio) finish(ctx context.Context) {
	for _, i := range s.imported {
		if !isRegular(i.host) {
			continue
		}
		fd := int(i.host.Fd())
		unix.FcntlInt(i.host.Fd(), unix.F_SETFL, i.flags)
		outside, err := unix.Seek(fd, 0, unix.SEEK_CUR)
		if err != nil {
			continue
		}
		if inside, err := i.fd.Seek(ctx, 0, linux.SEEK_CUR); err == nil && inside > outside {
			unix.Seek(fd, inside, unix.SEEK_SET)
		}
	}
}

func isRegular(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

func (s *stdio) release(ctx context.Context) {
	for _, i := range s.imported {
		i.fd.DecRef(ctx)
	}
	s.imported = nil
	s.fds.DecRef(ctx)
}

// sameFile tells whether a and b share an offset: one open file description,
// or one terminal opened twice.
func sameFile(a, b *os.File) bool {
	const kcmpFile = 0 // KCMP_FILE, kcmp(2)
	pid := uintptr(os.Getpid())
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, a.Fd(), b.Fd(), 0)
	if errno == 0 && r == 0 {
		return true
	}
	var x, y unix.Stat_t
	if unix.Fstat(int(a.Fd()), &x) != nil || unix.Fstat(int(b.Fd()), &y) != nil {
		return false
	}
	sameInode := x.Dev == y.Dev && x.Ino == y.Ino
	return sameInode && (errno != 0 || host.IsTTY(int(a.Fd())))
}
