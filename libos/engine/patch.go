//go:build amd64

package engine

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/mm"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/usermem"
)

// hotAfter is the number of traps after which a site is patched: a patch costs
// as much as some twenty traps, and a copy of the page.
const hotAfter = 32

// patches are the patched sites of one address space.
type patches struct {
	// traps counts, in the low byte, the traps of the site whose address is in
	// the others. A site that cannot be patched stays above hotAfter; one with
	// another's hash takes its place.
	traps [256]atomic.Uint64

	mu sync.Mutex
	// entries are those to give back. +checklocks:mu
	entries []int
	// inherited: a fork may have copied the jumps. +checklocks:mu
	inherited bool
}

// trapped counts a trap of the syscall instruction before next and tells
// whether it is time to patch it.
func (p *patches) trapped(next uint64) bool {
	slot := &p.traps[(next*0x9e3779b97f4a7c15)>>56]
	old := slot.Load()
	if old>>8 != next&(1<<56-1) {
		old = next << 8
	}
	if old&0xff > hotAfter {
		return false
	}
	return slot.CompareAndSwap(slot.Load(), old+1) && old&0xff == hotAfter
}

// forget gives up the entries of an address space that is gone.
func (p *patches) forget(t *trampolines) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.inherited {
		t.drop(p.entries)
	}
	p.entries = nil
}

// patch replaces the site that the program has left, if it is of a known kind
// in text that is the program's own: mapped privately from a file and not writable.
// Code made at run time, in anonymous memory or a memfd, keeps trapping, as it
// may be rewritten.
func (as *addressSpace) patch(ctx context.Context, m platform.MemoryManager, next hostarch.Addr, nr uint64) {
	if t := kernel.TaskFromContext(ctx); t == nil || t.Tracer() != nil {
		return // a tracer wants to see the program's own instructions
	}
	as.patches.mu.Lock()
	defer as.patches.mu.Unlock()
	var code [siteWindow]byte
	window := next - syscallLen - beforeSite
	if _, err := m.CopyIn(ctx, window, code[:], usermem.IOOpts{IgnorePermissions: true}); err != nil {
		return // at the edge of a mapping
	}
	s, ok := findSite(&code, next, nr)
	if !ok || !isText(ctx, m, hostarch.AddrRange{Start: window, End: window + siteWindow}) {
		return
	}
	entry, ok := sites.take(s)
	if !ok {
		return // it keeps trapping
	}
	as.patches.entries = append(as.patches.entries, entry)
	if err := as.write(ctx, m, s.start(), s.edits(s.jump(entry))); err != nil {
		// The text is going away, or memory is: put back what can be put back.
		old := [jumpLen]byte(code[s.start()-window:])
		_ = as.write(ctx, m, s.start(), [][]edit{{{0, old[:]}}})
	}
}

// write makes edits of the text at start, in their order.
func (as *addressSpace) write(ctx context.Context, m platform.MemoryManager, start hostarch.Addr, steps [][]edit) error {
	for _, step := range steps {
		for _, e := range step {
			if _, err := m.CopyOut(ctx, start+hostarch.Addr(e.offset), e.code, usermem.IOOpts{IgnorePermissions: true}); err != nil {
				return err
			}
		}
		if err := serialize(); err != nil {
			return err
		}
	}
	return nil
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

// Commands of membarrier(2), include/uapi/linux/membarrier.h.
const (
	membarrierSyncCore         = 1 << 5
	membarrierRegisterSyncCore = 1 << 6
)

// serialize makes every thread of this process execute a serializing
// instruction before its next one in user mode (cross-modifying code, Intel
// SDM vol. 3, 9.1.3).
func serialize() error { return membarrier(membarrierSyncCore) }

func membarrier(command uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, command, 0, 0); errno != 0 {
		return fmt.Errorf("membarrier command %d: %w", command, errno)
	}
	return nil
}
