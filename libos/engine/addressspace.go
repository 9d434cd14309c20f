//go:build amd64

package engine

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// addressSpace is one program's memory. It is mapped in this process, on the
// second platform, or nowhere: what is missing is mapped on demand when the
// program faults, so that moving it is unmapping it.
type addressSpace struct {
	p       *Platform
	patches patches // what is not locked by itself: +checklocks:mu

	// left holds a token when a thread has left that was told to.
	left chan struct{}
	// candidate and wasHere are the slot's, under its lock.
	candidate candidate
	wasHere   bool

	// io is held for reading while the libOS uses the program's memory where it
	// lies in this process, and for writing while that ends.
	io sync.RWMutex

	mu sync.Mutex
	// here: mapped in this process. Written with mu and the slot's lock held.
	here atomic.Bool
	// stub is the address space on the second platform, once there is one. +checklocks:mu
	stub platform.AddressSpace
	// stubbed: stub is not nil.
	stubbed atomic.Bool
	// contexts are the threads whose last Switch was in this address space. +checklocks:mu
	contexts map[*switchContext]struct{}
	// inside and outside count the Switches of threads that have parted. +checklocks:mu
	inside, outside uint64
	// mm is the program's memory manager, once one of its threads has executed. +checklocks:mu
	mm platform.MemoryManager
}

func newAddressSpace(p *Platform) *addressSpace {
	return &addressSpace{
		p: p, left: make(chan struct{}, 1), contexts: make(map[*switchContext]struct{}),
		patches: patches{
			pages: make(map[hostarch.Addr]*patchedPage), read: make(map[hostarch.Addr]struct{}), entries: make(map[site]int),
		},
	}
}

// size returns how many bytes of the program's memory are resident.
func (as *addressSpace) size() uint64 {
	as.mu.Lock()
	mm, ok := as.mm.(interface{ ResidentSetSize() uint64 })
	as.mu.Unlock()
	if !ok {
		return 0
	}
	return mm.ResidentSetSize()
}

// MapFile implements platform.AddressSpace.MapFile.
func (as *addressSpace) MapFile(addr hostarch.Addr, f memmap.File, fr memmap.FileRange, at hostarch.AccessType, precommit bool) error {
	as.mu.Lock()
	defer as.mu.Unlock()
	switch {
	case as.here.Load():
		err := mapHere(addr, f, fr, at, precommit)
		as.cover(hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(fr.Length())}, at)
		return err
	case as.stub != nil:
		return as.stub.MapFile(addr, f, fr, at, precommit)
	default:
		return nil // mapped on demand, wherever it will run
	}
}

// Unmap implements platform.AddressSpace.Unmap.
func (as *addressSpace) Unmap(addr hostarch.Addr, length uint64) {
	as.mu.Lock()
	defer as.mu.Unlock()
	r := hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(length)}
	defer as.uncoverAll(r)
	switch {
	case as.here.Load():
		unmapHere(r)
	case as.stub != nil:
		as.stub.Unmap(addr, length)
	}
}

// Release implements platform.AddressSpace.Release.
func (as *addressSpace) Release() {
	as.p.slot.leave(as)
	as.mu.Lock()
	defer as.mu.Unlock()
	as.forget()
	if as.stub != nil {
		as.stub.Release()
	}
}

// PreFork implements platform.AddressSpace.PreFork.
func (*addressSpace) PreFork() {}

// PostFork implements platform.AddressSpace.PostFork.
func (*addressSpace) PostFork() {}

// mapHere maps a file of the Sentry's into this process at the program's address.
func mapHere(addr hostarch.Addr, f memmap.File, fr memmap.FileRange, at hostarch.AccessType, precommit bool) error {
	if overlapsHost(hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(fr.Length())}) {
		return unix.EFAULT
	}
	fd, err := f.DataFD(fr)
	if err != nil {
		return err
	}
	flags := unix.MAP_SHARED | unix.MAP_FIXED
	if precommit {
		flags |= unix.MAP_POPULATE
	}
	errno := retrying(func() unix.Errno {
		_, _, errno := unix.Syscall6(unix.SYS_MMAP, uintptr(addr), uintptr(fr.Length()), uintptr(at.Prot()), uintptr(flags), uintptr(fd), uintptr(fr.Start))
		return errno
	})
	if errno != 0 {
		return errno
	}
	return nil
}

// unmapHere unmaps what is the program's in r.
func unmapHere(r hostarch.AddrRange) {
	withoutHost(r, func(r hostarch.AddrRange) {
		if errno := retrying(func() unix.Errno { return munmap(r) }); errno != 0 {
			panic("engine: munmap of a program's range: " + errno.Error())
		}
	})
}

// retrying calls f again when this process has as many mappings as it may have
// (vm.max_map_count): all of the program's are given up first, which takes no
// mapping more. Those that it needs are made again when it faults.
func retrying(f func() unix.Errno) unix.Errno {
	errno := f()
	if errno != unix.ENOMEM {
		return errno
	}
	withoutHost(userRange, func(r hostarch.AddrRange) { munmap(r) })
	return f()
}

func munmap(r hostarch.AddrRange) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_MUNMAP, uintptr(r.Start), uintptr(r.Length()), 0)
	return errno
}
