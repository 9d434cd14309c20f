//go:build amd64

package engine

import (
	"encoding/binary"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trampolines are the sites that are patched anywhere in this process, with
// the table and the code that they jump through.
//
// Invariants: table and code are writable views of the pages that programs see
// read-only at tableLow and trampolinesLow; an entry that has a user does not change.
type trampolines struct {
	mu sync.Mutex
	// +checklocks:mu
	sites [maxSites]site
	// users counts the address spaces that jump through an entry. +checklocks:mu
	users [maxSites]uint32
	// entries finds the entry of a site in use. +checklocks:mu
	entries map[site]int
	// free are entries given back; used is the number of those ever taken. +checklocks:mu
	free []int
	used int

	table *[trampolinesLow - tableLow]byte
	code  *[maxSites][trampolineSize]byte
}

// newTrampolines maps the table and the code.
func newTrampolines() (*trampolines, error) {
	const size = sitesEnd - tableLow
	fd, view, err := newExecutableMemory("junction-sites", size)
	if err != nil {
		return nil, fmt.Errorf("memory for trampolines: %w", err)
	}
	defer unix.Close(fd)
	for _, m := range []struct{ low, high, prot uintptr }{
		{tableLow, trampolinesLow, unix.PROT_READ},
		{trampolinesLow, sitesEnd, unix.PROT_READ | unix.PROT_EXEC},
	} {
		if _, _, errno := unix.Syscall6(unix.SYS_MMAP, m.low, m.high-m.low, m.prot, unix.MAP_SHARED|unix.MAP_FIXED_NOREPLACE, uintptr(fd), m.low-tableLow); errno != 0 {
			return nil, fmt.Errorf("mapping trampolines at %#x: %w", m.low, errno)
		}
	}
	return &trampolines{
		entries: make(map[site]int),
		table:   (*[trampolinesLow - tableLow]byte)(view),
		code:    (*[maxSites][trampolineSize]byte)(unsafe.Add(view, trampolinesLow-tableLow)),
	}, nil
}

// take returns an entry for s, or false when all are taken. Each take wants a
// drop, or the entry stays for good.
func (t *trampolines) take(s site) (int, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.entries[s]; ok {
		t.users[e]++
		return e, true
	}
	e := t.used
	switch n := len(t.free); {
	case n > 0:
		e, t.free = t.free[n-1], t.free[:n-1]
	case e < maxSites:
		t.used++
	default:
		return 0, false
	}
	copy(t.code[e][:], s.trampoline(e, addrOfCallEntry(), addrOfForeignGS()))
	binary.LittleEndian.PutUint64(t.table[tableAddr(e)-tableLow:], uint64(trampolinesLow+e*trampolineSize))
	t.sites[e], t.users[e], t.entries[s] = s, 1, e
	return e, true
}

// drop gives entries back.
//
// Preconditions: no thread will jump through them on behalf of the taker.
func (t *trampolines) drop(entries []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range entries {
		if t.users[e]--; t.users[e] == 0 {
			delete(t.entries, t.sites[e])
			t.free = append(t.free, e)
		}
	}
}

// site returns the site of an entry, if it has a user.
func (t *trampolines) site(entry int) (site, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users[entry] == 0 {
		return site{}, false
	}
	return t.sites[entry], true
}

// called returns the site of an entry whose trampoline has just been left. It
// takes no lock: the entry is in use.
func (t *trampolines) called(entry uint64) site { return t.sites[entry%maxSites] }
