package ipc

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file:
//   - The memfd is sealed against shrinking before it is mapped, so every
//     address of a mapping has memory behind it.
//   - A mapping stays mapped, at one address, until free; detach exchanges the
//     pages behind it, never the addresses. free is called by the cleanup of
//     the End that holds all pointers and slices into it, so none is left.
//   - Offsets come from Options that check has accepted, for a memfd of exactly
//     memSize bytes, so all lie inside; they are multiples of 8.

// mapping is a range of mapped memory.
type mapping struct {
	addr unsafe.Pointer
	size uintptr
}

const readWrite = unix.PROT_READ | unix.PROT_WRITE

func mapShared(fd, size int) (mapping, error) {
	addr, err := unix.MmapPtr(fd, 0, nil, uintptr(size), readWrite, unix.MAP_SHARED)
	if err != nil {
		return mapping{}, fmt.Errorf("map a ring pair: %w", err)
	}
	return mapping{addr, uintptr(size)}, nil
}

// detach gives the memfd up: it puts pages of zeros in its place, which
// concurrent accesses may still use.
func (m mapping) detach() {
	_, err := unix.MmapPtr(-1, 0, m.addr, m.size, readWrite,
		unix.MAP_FIXED|unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		panic(fmt.Sprintf("ipc: replace own mapping: %v", err)) // cannot fail on a range we own
	}
}

func (m mapping) free() { _ = unix.MunmapPtr(m.addr, m.size) }

// lane returns the parts of ring dir.
func (m mapping) lane(o Options, dir int) lane {
	control, desc, data := o.laneOffsets(dir)
	word := func(off int) unsafe.Pointer { return unsafe.Add(m.addr, control+off) }
	return lane{
		producer: (*atomic.Uint32)(word(offProducer)),
		consumer: (*atomic.Uint32)(word(offConsumer)),
		rxSleep:  (*atomic.Uint64)(word(offRxSleep)),
		txSleep:  (*atomic.Uint64)(word(offTxSleep)),
		desc:     unsafe.Slice((*uint32)(unsafe.Add(m.addr, desc)), o.Buffers),
		data:     unsafe.Slice((*byte)(unsafe.Add(m.addr, data)), o.laneSize()),
	}
}
