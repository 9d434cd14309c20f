//go:build amd64

package engine

import (
	"unsafe"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safecopy"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// The program's memory is copied where the program has it, while its address
// space is in this process. The Sentry maps what is missing and tries again. All
// that is out of the ordinary is left to the Sentry's own way, which uses another
// mapping of the memory file.
//
// Invariants: guest returns only pointers to memory below maxUserAddress that is
// not the host's: the program's, or nobody's. It stays so until access ends. All
// reads and writes are safecopy's, whose faults are errors.

// anotherWay is what the Sentry takes for a wish to use its own way.
var anotherWay error = platform.AddressSpaceIOUnavailable{}

// access begins an access to n bytes of the program's at addr, and tells whether
// it may be made in this process. If so, io is held until endAccess.
func (as *addressSpace) access(addr hostarch.Addr, n uintptr) (unsafe.Pointer, bool) {
	as.io.RLock()
	r, ok := addr.ToRange(uint64(n))
	if !ok || r.End > maxUserAddress || !as.here.Load() || overlapsHost(r) || !copiesHidden && as.patchedIn(r) {
		as.io.RUnlock()
		return nil, false
	}
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr)), true // not Go memory
}

// endAccess ends an access, which err is the result of.
func (as *addressSpace) endAccess(err error) error {
	as.io.RUnlock()
	if err == nil {
		return nil
	}
	// Text under a copy faults however often the Sentry maps it.
	if fault, ok := err.(safecopy.SegvError); ok && !as.patched(hostarch.Addr(fault.Addr)) { //nolint: never wrapped
		return platform.SegmentationFault{Addr: hostarch.Addr(fault.Addr)}
	}
	return anotherWay
}

// CopyOut implements platform.AddressSpaceIO.CopyOut.
func (as *addressSpace) CopyOut(addr hostarch.Addr, src []byte) (int, error) {
	p, ok := as.access(addr, uintptr(len(src)))
	if !ok {
		return 0, anotherWay
	}
	n, err := safecopy.CopyOut(p, src)
	return n, as.endAccess(err)
}

// CopyIn implements platform.AddressSpaceIO.CopyIn.
func (as *addressSpace) CopyIn(addr hostarch.Addr, dst []byte) (int, error) {
	p, ok := as.access(addr, uintptr(len(dst)))
	if !ok {
		return 0, anotherWay
	}
	n, err := safecopy.CopyIn(dst, p)
	return n, as.endAccess(err)
}

// ZeroOut implements platform.AddressSpaceIO.ZeroOut.
func (as *addressSpace) ZeroOut(addr hostarch.Addr, toZero uintptr) (uintptr, error) {
	p, ok := as.access(addr, toZero)
	if !ok {
		return 0, anotherWay
	}
	n, err := safecopy.ZeroOut(p, toZero)
	return n, as.endAccess(err)
}

// SwapUint32 implements platform.AddressSpaceIO.SwapUint32.
func (as *addressSpace) SwapUint32(addr hostarch.Addr, v uint32) (uint32, error) {
	p, ok := as.access(addr, 4)
	if !ok {
		return 0, anotherWay
	}
	old, err := safecopy.SwapUint32(p, v)
	return old, as.endAccess(err)
}

// CompareAndSwapUint32 implements platform.AddressSpaceIO.CompareAndSwapUint32.
func (as *addressSpace) CompareAndSwapUint32(addr hostarch.Addr, old, v uint32) (uint32, error) {
	p, ok := as.access(addr, 4)
	if !ok {
		return 0, anotherWay
	}
	prev, err := safecopy.CompareAndSwapUint32(p, old, v)
	return prev, as.endAccess(err)
}

// LoadUint32 implements platform.AddressSpaceIO.LoadUint32.
func (as *addressSpace) LoadUint32(addr hostarch.Addr) (uint32, error) {
	p, ok := as.access(addr, 4)
	if !ok {
		return 0, anotherWay
	}
	v, err := safecopy.LoadUint32(p)
	return v, as.endAccess(err)
}
