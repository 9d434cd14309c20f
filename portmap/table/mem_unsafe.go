package table

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file:
//   - A mapping begins on a page, so its words are aligned.
//   - Its file is sealed against shrinking or is a BPF map, whose size is
//     fixed: no access within the mapping raises SIGBUS.
//   - The slice of words dies with the mapping at unmap; whoever calls unmap
//     sees to it that nobody uses the slice then or later.

// mapping is a shared mapping of a file's beginning.
type mapping struct {
	bytes []byte
	words []uint64
}

// mapWords maps n words. prot is PROT_READ, or PROT_READ with PROT_WRITE.
func mapWords(fd, n, prot int) (mapping, error) {
	size := (n*8 + pageSize - 1) &^ (pageSize - 1)
	b, err := unix.Mmap(fd, 0, size, prot, unix.MAP_SHARED)
	if err != nil {
		return mapping{}, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return mapping{b, unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), n)}, nil
}

func (m *mapping) unmap() error {
	if m.bytes == nil {
		return nil
	}
	err := unix.Munmap(m.bytes)
	*m = mapping{}
	return err
}
