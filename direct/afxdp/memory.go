package afxdp

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Memory is that of a Socket to be. To get its pages is most of what making a Socket
// costs a processor, so it can be done before, piece by piece.
type Memory struct {
	size uintptr
	file *os.File
	mem  mapping // with nil address: there is none any more
}

// NewMemory gets memory for a Socket on a NIC with this MTU and with Target.RXMemory.
// pause is called before each of its pieces, which take a processor half a millisecond,
// to wait as long as it likes; what it returns ends NewMemory.
func NewMemory(mtu int, rxMemory uint32, pause func() error) (*Memory, error) {
	g := geometryFor(mtu, rxMemory)
	m, err := newMemory(g.size())
	if err != nil {
		return nil, err
	}
	for rest := m.mem.bytes(); len(rest) > 0; rest = rest[min(hugePage, len(rest)):] {
		if err := pause(); err != nil {
			return nil, errors.Join(err, m.Close())
		}
		populate(rest[:min(hugePage, len(rest))])
	}
	return m, nil
}

// newMemory gets memory without pages: it gets each when it is first used.
func newMemory(size uintptr) (m *Memory, err error) {
	m = &Memory{size: size}
	if m.file, err = newUmem(size); err != nil {
		return nil, err
	}
	if m.mem, err = mapUmem(int(m.file.Fd()), size); err != nil {
		return nil, errors.Join(fmt.Errorf("map a umem: %w", err), m.file.Close())
	}
	return m, nil
}

// populate gets the pages of a piece: one large one, if the kernel can (Linux 6.1), for
// which it does a third of the work, else many. What it cannot get is missing when it
// is needed, which tells of it.
func populate(piece []byte) {
	if len(piece) == hugePage {
		piece[0] = 0 // a piece without a page is not made one
		if unix.Madvise(piece, unix.MADV_COLLAPSE) == nil {
			return
		}
	}
	_ = unix.Madvise(piece, unix.MADV_POPULATE_WRITE)
}

// take returns the file, which is the caller's from now on, and the mapping.
func (m *Memory) take() (*os.File, mapping) {
	file, mem := m.file, m.mem
	m.file, m.mem = nil, mapping{}
	return file, mem
}

// Close gives the memory up, unless a Socket has it.
func (m *Memory) Close() error {
	file, mem := m.take()
	mem.free()
	if file == nil {
		return nil
	}
	return file.Close()
}
