package plugin

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file:
//   - The memfd is pageSize bytes long before it is mapped and sealed against
//     shrinking, so every address of the mapping has memory behind it.
//   - words has no pointers, and any bits are valid values of it; a mapping is
//     page-aligned.
//   - The slice is dropped before the mapping goes; Close says that nobody may
//     use the Page then.

const pageSize = PageTasks * int64(unsafe.Sizeof(words{}))

func (p *Page) mmap(prot int) (err error) {
	if p.m, err = unix.Mmap(p.fd, 0, int(pageSize), prot, unix.MAP_SHARED); err != nil {
		return err
	}
	p.words = unsafe.Slice((*words)(unsafe.Pointer(&p.m[0])), PageTasks)
	return nil
}
