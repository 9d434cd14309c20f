//go:build amd64

package engine

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/mm"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/usermem"
)

// hotAfter is the number of traps after which a site is patched: a patch costs
// as much as some twenty traps, and a copy of the page.
const hotAfter = 32

// maxEntries bounds the entries that one program can have, which it keeps until
// it ends: it may map ever more text.
const maxEntries = maxSites / 4

// patches are the patched sites of one address space. Text is patched by
// laying a copy of its page over it (copies). As soon as the Sentry maps
// something else there, or the program reads the page, the copy goes: so a
// program that reads, moves or changes its own text finds what it put there.
type patches struct {
	// traps counts, in the low byte, the traps of the site whose address is in
	// the others. A site that cannot be patched stays above hotAfter; one with
	// another's hash takes its place.
	traps [256]atomic.Uint64
	// version changes after each change of what is mapped over text.
	version atomic.Uint64

	// mu is held while a site is patched, and taken before a memory manager's locks.
	mu sync.Mutex

	// The rest is guarded by addressSpace.mu.

	// pages are the patched pages of text.
	pages map[hostarch.Addr]*patchedPage
	// read are pages that the program reads, which stay as they are.
	read map[hostarch.Addr]struct{}
	// next is the page that is about to be patched, 0 if it has changed since.
	next hostarch.Addr
	// entries are those of all sites that were ever patched: a thread may still
	// be on its way through one when its site is patched no more.
	entries map[site]int
}

// patchedPage is a page of text under a copy.
type patchedPage struct {
	copy int
	// sites by the address of their first byte.
	sites map[hostarch.Addr]patchedSite
}

type patchedSite struct {
	site
	entry int
}

func (p *patches) counter(next uint64) *atomic.Uint64 {
	return &p.traps[(next*0x9e3779b97f4a7c15)>>56]
}

// trapped counts a trap of the syscall instruction before next and tells
// whether it is time to patch it.
func (p *patches) trapped(next uint64) bool {
	slot := p.counter(next)
	old := slot.Load()
	if old>>8 != next&(1<<56-1) {
		old = next << 8
	}
	if old&0xff > hotAfter {
		return false
	}
	return slot.CompareAndSwap(slot.Load(), old+1) && old&0xff == hotAfter
}

// again lets the site before next be patched after as many traps as at first.
func (p *patches) again(next hostarch.Addr) { p.counter(uint64(next)).Store(0) }

// patch replaces the site that the program has left, if it is of a known kind
// in text that is the program's own: mapped privately from a file and not writable.
// Code made at run time, in anonymous memory or a memfd, keeps trapping, as it
// may be rewritten.
func (as *addressSpace) patch(ctx context.Context, m platform.MemoryManager, next hostarch.Addr, nr uint64) {
	t := kernel.TaskFromContext(ctx)
	if t == nil || t.Tracer() != nil {
		return // a tracer wants to see each instruction
	}
	if nr == unix.SYS_RT_SIGRETURN && !copiesHidden {
		return // unwinders know a signal's frame by the bytes of its return
	}
	as.patches.mu.Lock()
	defer as.patches.mu.Unlock()
	var code [siteWindow]byte
	window := next - syscallLen - beforeSite
	if _, err := m.CopyIn(ctx, window, code[:], usermem.IOOpts{IgnorePermissions: true}); err != nil {
		return // at the edge of a mapping
	}
	s, ok := findSite(&code, next, nr)
	if !ok || !s.inOnePage() || !isText(ctx, m, hostarch.AddrRange{Start: window, End: window + siteWindow}) {
		return
	}
	if !as.expect(s.start().RoundDown()) || isOwnCopy(ctx, t.Kernel(), m.(*mm.MemoryManager), s.start().RoundDown()) {
		return
	}
	var page [pageSize]byte
	if _, err := m.CopyIn(ctx, s.start().RoundDown(), page[:], usermem.IOOpts{IgnorePermissions: true}); err != nil {
		return
	}
	if !as.lay(s, &page) {
		as.patches.again(next)
	}
}

// expect begins to patch a page, unless it must not be.
func (as *addressSpace) expect(page hostarch.Addr) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	if _, ok := as.patches.read[page]; ok {
		return false
	}
	as.patches.next = page
	return true
}

// lay patches a site: text is its page, read since expect. It returns false
// when the page has changed meanwhile.
func (as *addressSpace) lay(s site, text *[pageSize]byte) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	p := &as.patches
	start, page := s.start(), s.start().RoundDown()
	if p.next != page {
		return false
	}
	p.next = 0
	entry, ok := p.entry(s)
	if !ok {
		return true // it keeps trapping
	}
	all := map[hostarch.Addr]patchedSite{start: {s, entry}}
	old := p.pages[page]
	if old != nil {
		maps.Copy(all, old.sites)
	}
	for start, s := range all {
		jump := s.jump(s.entry)
		copy(text[start-page:], jump[:])
	}
	n, ok := pages.take(text)
	if !ok {
		return true
	}
	p.pages[page] = &patchedPage{copy: n, sites: all}
	// Threads may be executing here: one page takes the place of the other at
	// once, so no instruction is half old. Who is at the second instruction of the
	// site faults (mend).
	if as.here.Load() {
		as.coverPage(page)
	}
	if old != nil {
		pages.drop(old.copy)
	}
	p.version.Add(1)
	return true
}

// entry returns the entry of a site, or false if there is none left.
func (p *patches) entry(s site) (int, bool) {
	if entry, ok := p.entries[s]; ok {
		return entry, true
	}
	if len(p.entries) >= maxEntries {
		return 0, false
	}
	entry, ok := sites.take(s)
	if ok {
		p.entries[s] = entry
	}
	return entry, ok
}

// coverPage maps the copy of a page. If that fails, the page stays as it is.
//
// +checklocks:as.mu
func (as *addressSpace) coverPage(page hostarch.Addr) {
	if errno := retrying(func() unix.Errno { return pages.mapAt(as.patches.pages[page].copy, page) }); errno != 0 {
		munmap(hostarch.AddrRange{Start: page, End: page + pageSize})
		as.uncover(page)
	}
}

// cover puts the copies over text of r that the Sentry has mapped again, or
// forgets them if it is text no more.
//
// +checklocks:as.mu
func (as *addressSpace) cover(r hostarch.AddrRange, at hostarch.AccessType) {
	as.patches.each(r, func(page hostarch.Addr) {
		if at.Write || !at.Execute {
			as.uncover(page)
		} else {
			as.coverPage(page)
		}
	})
}

// uncoverAll forgets the copies of a range that the Sentry maps something
// else in, and that is unmapped.
//
// +checklocks:as.mu
func (as *addressSpace) uncoverAll(r hostarch.AddrRange) {
	as.patches.each(r, as.uncover)
	if r.Contains(as.patches.next) {
		as.patches.next = 0
	}
	if len(as.patches.read) > 0 {
		maps.DeleteFunc(as.patches.read, func(page hostarch.Addr, _ struct{}) bool { return r.Contains(page) })
	}
}

// uncover forgets the copy of a page, which is not mapped any more.
//
// +checklocks:as.mu
func (as *addressSpace) uncover(page hostarch.Addr) {
	p := as.patches.pages[page]
	delete(as.patches.pages, page)
	pages.drop(p.copy)
	for _, s := range p.sites {
		as.patches.again(s.next)
	}
	as.patches.version.Add(1)
}

// each calls f for the patched pages in r.
func (p *patches) each(r hostarch.AddrRange, f func(page hostarch.Addr)) {
	if uint64(r.Length())/pageSize < uint64(len(p.pages)) {
		for page := r.Start; page < r.End; page += pageSize {
			if p.pages[page] != nil {
				f(page)
			}
		}
		return
	}
	for page := range p.pages {
		if r.Contains(page) {
			f(page)
		}
	}
}

// unpatch gives the page at addr back to the program for good, and tells
// whether it was patched.
func (as *addressSpace) unpatch(addr hostarch.Addr) bool {
	page := addr.RoundDown()
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.patches.pages[page] == nil {
		return false
	}
	if as.here.Load() {
		unmapHere(hostarch.AddrRange{Start: page, End: page + pageSize})
	}
	as.uncover(page)
	as.patches.read[page] = struct{}{}
	return true
}

// unpatchAll gives all text back to the program. What is written to a page that
// is the program's own copy already changes no mapping, so a copy laid over that
// would hide what a tracer writes.
func (as *addressSpace) unpatchAll() {
	as.mu.Lock()
	defer as.mu.Unlock()
	as.patches.next = 0
	for page := range as.patches.pages {
		if as.here.Load() {
			unmapHere(hostarch.AddrRange{Start: page, End: page + pageSize})
		}
		as.uncover(page)
	}
}

// patched tells whether there are patched sites in the page at addr.
func (as *addressSpace) patched(addr hostarch.Addr) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.patches.pages[addr.RoundDown()] != nil
}

// patchedIn tells whether there are patched sites in the pages of r.
func (as *addressSpace) patchedIn(r hostarch.AddrRange) (patched bool) {
	as.mu.Lock()
	defer as.mu.Unlock()
	r.Start = r.Start.RoundDown()
	as.patches.each(r, func(hostarch.Addr) { patched = true })
	return patched
}

// siteAround returns the patched site of which addr is a byte, but not the first.
func (as *addressSpace) siteAround(addr hostarch.Addr) (site, bool) {
	as.mu.Lock()
	defer as.mu.Unlock()
	p := as.patches.pages[addr.RoundDown()]
	for n := hostarch.Addr(1); p != nil && n < jumpLen; n++ {
		if s, ok := p.sites[addr-n]; ok {
			return s.site, true
		}
	}
	return site{}, false
}

// forget gives up the patches of an address space that is gone.
//
// +checklocks:as.mu
func (as *addressSpace) forget() {
	for _, p := range as.patches.pages {
		pages.drop(p.copy)
	}
	sites.drop(slices.Collect(maps.Values(as.patches.entries)))
	as.patches.pages, as.patches.entries = nil, nil
}

// isOwnCopy tells whether a page of text is the program's own copy of the file's:
// somebody has written to it (/proc/PID/mem, process_vm_writev). Who writes to it
// again changes no mapping, so a patched copy laid over it would hide that.
func isOwnCopy(ctx context.Context, k *kernel.Kernel, m *mm.MemoryManager, page hostarch.Addr) bool {
	pinned, err := m.Pin(ctx, hostarch.AddrRange{Start: page, End: page + pageSize}, hostarch.Read, true)
	defer mm.Unpin(pinned)
	if err != nil || len(pinned) != 1 {
		return true // it has just been unmapped
	}
	if f, ok := pinned[0].File.(*pgalloc.MemoryFile); !ok || f != k.MemoryFile() {
		return false // the host's file
	}
	// A copy, or a file in the libOS's memory. Only smaps tells which.
	var smaps bytes.Buffer
	m.ReadSmapsDataInto(ctx, &smaps)
	return hasCopies(&smaps, page)
}

// hasCopies tells from smaps (proc_pid_smaps(5)) whether there are copies in the
// mapping around addr.
func hasCopies(smaps io.Reader, addr hostarch.Addr) bool {
	around := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		var start, end hostarch.Addr
		if n, _ := fmt.Sscanf(s.Text(), "%x-%x ", &start, &end); n == 2 {
			around = start <= addr && addr < end
			continue
		}
		if size, ok := strings.CutPrefix(s.Text(), "Anonymous:"); ok && around {
			return strings.TrimSpace(size) != "0 kB"
		}
	}
	return true
}

// isText tells whether r is text of a file, mapped privately and not writable.
func isText(ctx context.Context, m platform.MemoryManager, r hostarch.AddrRange) (text bool) {
	m.(*mm.MemoryManager).ReadMapsDataInto(ctx, func(start, end hostarch.Addr, perms hostarch.AccessType, private string, _ uint64, _, _ uint32, inode uint64, name string) {
		if start <= r.Start && r.End <= end {
			text = perms.Execute && !perms.Write && private == "p" && inode != 0 && !strings.HasPrefix(name, "/memfd:")
		}
	})
	return text
}
