package ipc

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Attach takes a side of the ring pair that fds belong to, in the order of
// Pair.Files. The descriptors are Attach's from then on, also when it fails.
// Everything is checked before use: an error is ErrLayout, or the system's.
func Attach(s Side, fds [FilesPerEnd]int) (*End, error) {
	o, err := inspect(s, fds)
	if err != nil {
		closeAll(distinct(fds))
		return nil, fmt.Errorf("attach to a ring pair: %w", err)
	}
	m, err := mapShared(fds[0], o.memSize())
	_ = unix.Close(fds[0]) // the mapping keeps the memory
	if err != nil {
		closeAll(fds[1:])
		return nil, fmt.Errorf("attach to a ring pair: %w", err)
	}
	e := newEnd(m.lane(o, int(s)), m.lane(o, 1-int(s)))
	e.opts, e.side, e.unmap = o, s, m.detach
	runtime.AddCleanup(e, mapping.free, m)
	if err := e.openBells(fds[1], fds[2]); err != nil {
		m.detach()
		return nil, fmt.Errorf("attach to a ring pair: %w", err)
	}
	e.greet()
	return e, nil
}

// inspect checks fds without changing anything.
func inspect(s Side, fds [FilesPerEnd]int) (Options, error) {
	if s >= sides {
		return Options{}, fmt.Errorf("%w: %v", ErrLayout, s)
	}
	if len(distinct(fds)) != FilesPerEnd {
		return Options{}, fmt.Errorf("%w: descriptors %d are not three different ones", ErrLayout, fds)
	}
	for _, fd := range fds[1:] {
		if err := checkBell(fd); err != nil {
			return Options{}, err
		}
	}
	return checkMemfd(fds[0])
}

func checkBell(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("%w: doorbell %d: %w", ErrLayout, fd, err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || domain != unix.AF_UNIX || kind != unix.SOCK_STREAM {
		return fmt.Errorf("%w: doorbell %d is no Unix stream socket", ErrLayout, fd)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		return fmt.Errorf("%w: doorbell %d blocks", ErrLayout, fd)
	}
	return nil
}

func checkMemfd(fd int) (Options, error) {
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return Options{}, fmt.Errorf("%w: descriptor %d is no memfd: %w", ErrLayout, fd, err)
	}
	if got&seals != seals {
		return Options{}, fmt.Errorf("%w: memfd has seals %#x, needs %#x", ErrLayout, got, seals)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Options{}, fmt.Errorf("%w: size of memfd: %w", ErrLayout, err)
	}
	var header [headerLen]byte
	if n, err := unix.Pread(fd, header[:], 0); err != nil {
		return Options{}, fmt.Errorf("%w: read memfd: %w", ErrLayout, err)
	} else if n < headerLen {
		return Options{}, fmt.Errorf("%w: memfd of %d bytes has no header", ErrLayout, st.Size)
	}
	return parseHeader(&header, st.Size)
}

// distinct returns each valid descriptor number of fds once.
func distinct(fds [FilesPerEnd]int) (out []int) {
	for i, fd := range fds {
		seen := fd < 0
		for _, other := range fds[:i] {
			seen = seen || other == fd
		}
		if !seen {
			out = append(out, fd)
		}
	}
	return out
}
