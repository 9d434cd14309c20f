package hints

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file:
//   - A memfd is size(items, classes) bytes long or longer before it is mapped,
//     and sealed against shrinking, so every address of the mapping has memory
//     behind it.
//   - header, class and item have no pointers, and any bits are valid values of
//     them; their sizes are multiples of 8, and a mapping is page-aligned.
//   - The slices are dropped before the mapping goes.

const (
	headerSize = int(unsafe.Sizeof(header{}))
	classSize  = int(unsafe.Sizeof(class{}))
	itemSize   = int(unsafe.Sizeof(item{}))
)

// mapped maps the table that fd is of.
func mapped(fd int, h *header, prot int) (m memory, b []byte, err error) {
	if b, err = unix.Mmap(fd, 0, int(size(h)), prot, unix.MAP_SHARED); err != nil {
		return m, nil, err
	}
	at := unsafe.Pointer(&b[headerSize])
	m.classes = unsafe.Slice((*class)(at), h.classes)
	m.items = unsafe.Slice((*item)(unsafe.Add(at, int(h.classes)*classSize)), h.items)
	return m, b, nil
}
