//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// maxCopies bounds the pages of text with patched sites in all programs. What
// is given back keeps its memory for the next: 16 MiB at most.
const maxCopies = 4096

// copies are pages of programs' text in which sites are patched. They lie over
// the originals in this process's page tables only: the Sentry's memory, and so
// whoever gets at the program's memory through it, has the original.
//
// Invariant: a copy that is mapped for a program does not change.
type copies struct {
	fd    int
	pages *[maxCopies][pageSize]byte

	mu sync.Mutex
	// free are copies given back; used is the number of those ever taken. +checklocks:mu
	free []int
	used int
}

func newCopies() (*copies, error) {
	fd, view, err := newExecutableMemory("junction-text", maxCopies*pageSize)
	if err != nil {
		return nil, fmt.Errorf("memory for patched text: %w", err)
	}
	return &copies{fd: fd, pages: (*[maxCopies][pageSize]byte)(view)}, nil
}

// take makes a copy of page and returns its number, or false when there are
// as many as there may be.
func (c *copies) take(page *[pageSize]byte) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.used
	switch free := len(c.free); {
	case free > 0:
		n, c.free = c.free[free-1], c.free[:free-1]
	case n < maxCopies:
		c.used++
	default:
		return 0, false
	}
	c.pages[n] = *page
	return n, true
}

// drop gives a copy back. It must not be mapped any more.
func (c *copies) drop(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, n)
}

// mapAt puts a copy over the page of the program's at addr: it can be executed
// and, where the processor has protection keys, not be read.
func (c *copies) mapAt(n int, addr hostarch.Addr) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_MMAP, uintptr(addr), pageSize, unix.PROT_EXEC, unix.MAP_SHARED|unix.MAP_FIXED, uintptr(c.fd), uintptr(n*pageSize))
	return errno
}

// newExecutableMemory makes memory that can be mapped as code, with a view
// that can be written.
func newExecutableMemory(name string, size int) (fd int, view unsafe.Pointer, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3, where all are executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, nil, err
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	view, err = unix.MmapPtr(fd, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, view, nil
}
