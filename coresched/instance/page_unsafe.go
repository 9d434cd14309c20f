package instance

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file:
//   - The memfd is pageSize bytes long and sealed against shrinking before it is
//     mapped, so every address of the mapping has memory behind it.
//   - layout has no pointers, and any bits are valid values of it; a mapping is
//     page-aligned and pageSize at least as long.
//   - The pointer is dropped when the mapping goes; Close says that nobody may
//     use it then.

const (
	pageSize = 4096
	_        = pageSize - unsafe.Sizeof(layout{}) // it fits
)

func (s *shared) mmap() (err error) {
	if s.m, err = unix.Mmap(s.memory, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	s.page = (*layout)(unsafe.Pointer(&s.m[0]))
	return nil
}
