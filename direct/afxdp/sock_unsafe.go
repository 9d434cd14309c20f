package afxdp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file:
//   - A mapping stays mapped, at the same address, until its free; detach
//     exchanges the pages behind it, never the addresses. Slices and pointers
//     into it are therefore always safe to use before free.
//   - free is called by the garbage collector's cleanup of the Queue that
//     holds all such slices and pointers, so none is left.
//   - Structures passed to the kernel have its layout (golang.org/x/sys/unix,
//     linux/if_xdp.h) and outlive the system call.

// mapping is a range of mapped memory.
type mapping struct {
	addr unsafe.Pointer
	size uintptr
}

const readWrite = unix.PROT_READ | unix.PROT_WRITE

// hugePage is the size of the kernel's larger pages, in bytes.
const hugePage = 2 << 20

// mapUmem maps the first size bytes of a file, which is sealed against shrinking, at a
// multiple of hugePage, so that the kernel can map large pages of it as such.
func mapUmem(fd int, size uintptr) (mapping, error) {
	// A range that has such an address in it is ours before the file comes into its place.
	room := size + hugePage
	addr, err := unix.MmapPtr(-1, 0, nil, room, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return mapping{}, err // not the failed call's address
	}
	before := -uintptr(addr) % hugePage
	start := unsafe.Add(addr, before)
	if _, err := unix.MmapPtr(fd, 0, start, size, readWrite, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		mapping{addr, room}.free()
		return mapping{}, err
	}
	mapping{addr, before}.free()
	mapping{unsafe.Add(start, size), room - before - size}.free()
	return mapping{start, size}, nil
}

// detach puts untouched pages of zeros in the place of the mapping's, which
// gives up what was mapped while concurrent accesses stay harmless.
func (m mapping) detach() {
	if m.addr == nil {
		return
	}
	_, err := unix.MmapPtr(-1, 0, m.addr, m.size, readWrite,
		unix.MAP_FIXED|unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		panic(fmt.Sprintf("afxdp: replace own mapping: %v", err)) // cannot fail on a range we own
	}
}

func (m mapping) free() {
	if m.addr != nil && m.size > 0 {
		_ = unix.MunmapPtr(m.addr, m.size)
	}
}

func (m mapping) bytes() []byte { return unsafe.Slice((*byte)(m.addr), m.size) }

// mapRing maps the ring of n entries that the socket has at page offset pgoff.
func mapRing[T any](fd int, pgoff int64, off *unix.XDPRingOffset, n uint32) (ring[T], mapping, error) {
	var entry T
	size := uintptr(off.Desc) + uintptr(n)*unsafe.Sizeof(entry)
	addr, err := unix.MmapPtr(fd, pgoff, nil, size, readWrite, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return ring[T]{}, mapping{}, fmt.Errorf("map an AF_XDP ring: %w", err)
	}
	s := shared{
		producer: (*uint32)(unsafe.Add(addr, off.Producer)),
		consumer: (*uint32)(unsafe.Add(addr, off.Consumer)),
		flags:    (*uint32)(unsafe.Add(addr, off.Flags)),
	}
	return newRing(s, unsafe.Slice((*T)(unsafe.Add(addr, off.Desc)), n)), mapping{addr, size}, nil
}

func ringOffsets(fd int) (off unix.XDPMmapOffsets, err error) {
	return off, getsockopt(fd, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&off), unsafe.Sizeof(off))
}

func statistics(fd int) (s unix.XDPStatistics, err error) {
	return s, getsockopt(fd, unix.XDP_STATISTICS, unsafe.Pointer(&s), unsafe.Sizeof(s))
}

func getsockopt(fd, opt int, value unsafe.Pointer, size uintptr) error {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt),
		uintptr(value), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// registerUmem makes m the socket's umem.
func registerUmem(fd int, m mapping, chunkSize, txMetadata uint32) error {
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(m.addr)), Len: uint64(m.size), Size: chunkSize}
	if txMetadata != 0 {
		reg.Flags, reg.Tx_metadata_len = unix.XDP_UMEM_TX_METADATA_LEN, txMetadata
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
