package ipc

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// FilesPerEnd is how many descriptors one side of a ring pair has: the memfd,
// the doorbell of the ring it produces for, that of the ring it consumes.
const FilesPerEnd = 3

// seals of every ring pair: its size stays, and so do the seals.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Pair is what the maker of a ring pair holds: its memory and both ends of both
// doorbells. It outlives the processes at its sides, so that one of them can be
// replaced; at most one process at a time may be attached to a side. A Pair's
// methods may be called from any goroutine, but none after Close.
type Pair struct {
	opts Options
	mem  int
	// bells[d] is the doorbell of ring d, which side d produces for: a pair of
	// connected sockets, the producer's and the consumer's.
	bells [sides][2]int
}

// NewPair makes a ring pair with empty rings.
func NewPair(o Options) (*Pair, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	p := &Pair{opts: o, mem: -1, bells: [sides][2]int{{-1, -1}, {-1, -1}}}
	if err := p.open(); err != nil {
		p.Close()
		return nil, fmt.Errorf("make a ring pair: %w", err)
	}
	return p, nil
}

func (p *Pair) open() (err error) {
	if p.mem, err = newMemfd("junction-ring"); err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	if err := unix.Ftruncate(p.mem, int64(p.opts.memSize())); err != nil {
		return fmt.Errorf("size of memfd: %w", err)
	}
	var header [headerLen]byte
	p.opts.putHeader(header[:])
	if _, err := unix.Pwrite(p.mem, header[:], 0); err != nil {
		return fmt.Errorf("write to memfd: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(p.mem), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal memfd: %w", err)
	}
	for i := range p.bells {
		if p.bells[i], err = newBell(); err != nil {
			return fmt.Errorf("doorbell: %w", err)
		}
	}
	return nil
}

// newMemfd makes a memfd that can be sealed and, on Linux 6.3 and newer, never
// executed.
func newMemfd(name string) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		return unix.MemfdCreate(name, flags)
	}
	return fd, err
}

// Files returns the descriptors of a side, as Attach wants them, for passing
// to another process. They still belong to the Pair.
func (p *Pair) Files(s Side) [FilesPerEnd]int {
	tx, rx := int(s), 1-int(s)
	return [FilesPerEnd]int{p.mem, p.bells[tx][0], p.bells[rx][1]}
}

// Attach takes a side in this process.
func (p *Pair) Attach(s Side) (*End, error) {
	var fds [FilesPerEnd]int
	for i, fd := range p.Files(s) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(fds[:i])
			return nil, fmt.Errorf("attach to a ring pair: duplicate descriptor: %w", err)
		}
		fds[i] = dup
	}
	return Attach(s, fds)
}

// Close gives up the maker's descriptors. Processes that are attached keep
// theirs and learn with ErrGone when the other side goes.
func (p *Pair) Close() error {
	closeAll(append([]int{p.mem}, append(p.bells[0][:], p.bells[1][:]...)...))
	p.mem, p.bells = -1, [sides][2]int{{-1, -1}, {-1, -1}}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
