package steer

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file:
//   - The mapping is of a BPF array map, whose size is fixed, and begins on a
//     page: vfState has the layout of struct vf in steer.c.
//   - Nobody uses the states at or after unmap.

// vfState is what the program reads, and counts, of a VF.
type vfState struct {
	control atomic.Uint64
	stamps  atomic.Uint64
	_       [6]uint64
}

// Bits of control.
const (
	controlSteered  = 1
	controlSome     = 2
	controlOutlet   = 4 // for TakeOver: there is an outlet, unless somebody has deleted it
	controlTagShift = 8
	controlTag      = 0xff << controlTagShift
)

// states maps the n entries of the map fd for writing.
func states(fd, n int) (mem []byte, s []vfState, err error) {
	page := os.Getpagesize()
	size := (n*int(unsafe.Sizeof(vfState{})) + page - 1) &^ (page - 1)
	mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map the VFs' states: %w", err)
	}
	return mem, unsafe.Slice((*vfState)(unsafe.Pointer(unsafe.SliceData(mem))), n), nil
}
