//go:build amd64

package engine

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"pgregory.net/rapid"
)

// textPages is how much text the tests have, at textAddr.
const (
	textAddr  = hostarch.Addr(0x30_0000_0000)
	textPages = 6
)

// textFile is the Sentry's file that text is in.
type textFile struct {
	memmap.File
	fd int
}

func (f textFile) DataFD(memmap.FileRange) (int, error) { return f.fd, nil }

// newTextFile makes a file of system call sites: eight in each page.
func newTextFile(t *testing.T) (textFile, [textPages][pageSize]byte) {
	fd, err := unix.MemfdCreate("text", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	var text [textPages][pageSize]byte
	for p := range text {
		for n := range 8 {
			copy(text[p][n*512:], []byte{0xb8, byte(p*8 + n), 0, 0, 0, 0x0f, 0x05})
		}
		_, err := unix.Write(fd, text[p][:])
		require.NoError(t, err)
	}
	return textFile{fd: fd}, text
}

// siteOf is the n-th site of newTextFile's text.
func siteOf(n int) site {
	return site{movEAX, textAddr + hostarch.Addr(n*512+jumpLen), int32(n)}
}

// withText readies the test's process for patches at textAddr, and there only.
func withText(t *testing.T) {
	savedRanges, savedSites, savedPages := hostRanges, sites, pages
	hostRanges = []hostarch.AddrRange{{Start: 0, End: textAddr}, {Start: textAddr + textPages*pageSize, End: maxUserAddress}}
	sites = newTestTrampolines()
	var err error
	pages, err = newCopies()
	require.NoError(t, err)
	t.Cleanup(func() {
		unmapHere(textRange(0, textPages))
		unix.Close(pages.fd)
		require.NoError(t, unix.MunmapPtr(unsafe.Pointer(pages.pages), unsafe.Sizeof(*pages.pages)))
		hostRanges, sites, pages = savedRanges, savedSites, savedPages
	})
}

func newTestTrampolines() *trampolines {
	return &trampolines{entries: map[site]int{}, table: new([trampolinesLow - tableLow]byte), code: new([maxSites][trampolineSize]byte)}
}

func textRange(first, n int) hostarch.AddrRange {
	start := textAddr + hostarch.Addr(first*pageSize)
	return hostarch.AddrRange{Start: start, End: start + hostarch.Addr(n*pageSize)}
}

// memoryAt reads a page of this process whatever its protection, as a
// debugger does. It is nil where there is none.
func memoryAt(mem *os.File, addr hostarch.Addr) []byte {
	page := make([]byte, pageSize)
	if n, err := mem.ReadAt(page, int64(addr)); err != nil || n != pageSize {
		return nil
	}
	return page
}

// TestPatches: whatever the Sentry maps and unmaps, and the program reads,
// what lies at an address is its text, with the jumps that are known to be there.
func TestPatches(t *testing.T) {
	withText(t)
	file, text := newTextFile(t)
	mem, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	defer mem.Close()
	rapid.Check(t, func(t *rapid.T) {
		as := newAddressSpace(newFakePlatform(Policy{}))
		as.here.Store(true)
		defer as.forgetAll()
		var mapped [textPages]bool
		drawRange := func(t *rapid.T) (int, int) {
			first := rapid.IntRange(0, textPages-1).Draw(t, "first")
			return first, rapid.IntRange(1, textPages-first).Draw(t, "pages")
		}
		t.Repeat(map[string]func(*rapid.T){
			"map": func(t *rapid.T) {
				first, n := drawRange(t)
				at := rapid.SampledFrom([]hostarch.AccessType{hostarch.ReadExecute, hostarch.ReadExecute, hostarch.AnyAccess, hostarch.Read}).Draw(t, "at")
				r := textRange(first, n)
				require.NoError(t, as.MapFile(r.Start, file, memmap.FileRange{Start: uint64(first * pageSize), End: uint64((first + n) * pageSize)}, at, false))
				for p := first; p < first+n; p++ {
					mapped[p] = as.here.Load()
					if at != hostarch.ReadExecute && as.here.Load() {
						require.Nil(t, as.patches.pages[textRange(p, 1).Start])
					}
				}
			},
			"unmap": func(t *rapid.T) {
				first, n := drawRange(t)
				r := textRange(first, n)
				as.Unmap(r.Start, uint64(r.Length()))
				for p := first; p < first+n; p++ {
					mapped[p] = false
					require.Nil(t, as.patches.pages[textRange(p, 1).Start])
				}
			},
			"patch": func(t *rapid.T) {
				n := rapid.IntRange(0, textPages*8-1).Draw(t, "site")
				s := siteOf(n)
				if !as.expect(s.start().RoundDown()) {
					return // the program reads it
				}
				changed := rapid.Bool().Draw(t, "changed")
				if changed {
					as.Unmap(s.start().RoundDown(), pageSize)
					mapped[n/8] = false
				}
				page := text[n/8]
				require.Equal(t, !changed, as.lay(s, &page))
				mapped[n/8] = mapped[n/8] || !changed && as.here.Load()
			},
			"read": func(t *rapid.T) {
				n := rapid.IntRange(0, textPages-1).Draw(t, "page")
				addr := textRange(n, 1).Start + 77
				before, patched := as.patches.version.Load(), as.patches.pages[addr.RoundDown()] != nil
				require.Equal(t, patched, as.unpatch(addr))
				if patched {
					mapped[n] = false
					require.False(t, as.expect(addr.RoundDown()))
					require.NotEqual(t, before, as.patches.version.Load())
				}
			},
			"out": func(*rapid.T) {
				as.moveOut()
				clear(mapped[:])
			},
			"in": func(*rapid.T) { as.moveIn() },
			"": func(t *rapid.T) {
				require.Equal(t, pages.used-len(pages.free), len(as.patches.pages), "copies in use")
				for p := range textPages {
					want := text[p]
					if patched := as.patches.pages[textRange(p, 1).Start]; patched != nil {
						require.NotEmpty(t, patched.sites)
						for start, s := range patched.sites {
							jump := s.jump(s.entry)
							copy(want[start-textRange(p, 1).Start:], jump[:])
							require.Equal(t, s.site, sites.called(uint64(s.entry)))
						}
					}
					got := memoryAt(mem, textRange(p, 1).Start)
					require.Equal(t, mapped[p], got != nil, "page %d is mapped", p)
					require.True(t, got == nil || bytes.Equal(want[:], got), "page %d", p)
				}
			},
		})
	})
	require.Len(t, sites.free, sites.used, "entries left")
}

// forgetAll ends an address space of a test.
func (as *addressSpace) forgetAll() {
	as.mu.Lock()
	defer as.mu.Unlock()
	unmapHere(textRange(0, textPages))
	as.forget()
}

// TestEntriesOfOneProgram: a program that maps ever more text leaves entries
// to others, and gives back all when it ends.
func TestEntriesOfOneProgram(t *testing.T) {
	withText(t)
	as := newAddressSpace(newFakePlatform(Policy{}))
	for n := range 2 * maxSites {
		s := site{movEAX, hostarch.Addr(0x1000_0000 + n*pageSize + jumpLen), 1}
		for range 2 { // patched again at the same place
			require.True(t, as.expect(s.start().RoundDown()))
			require.True(t, as.lay(s, new([pageSize]byte)))
			require.Equal(t, n < maxEntries, as.patches.pages[s.start()] != nil)
			as.Unmap(s.start(), pageSize)
		}
	}
	require.Len(t, sites.entries, maxEntries)
	as.forgetAll()
	require.Empty(t, sites.entries)
}

// TestMend: what a fault in a patched site becomes.
func TestMend(t *testing.T) {
	withText(t)
	_, text := newTextFile(t)
	as := newAddressSpace(newFakePlatform(Policy{}))
	defer as.forgetAll()
	comparing := site{compare, textAddr + pageSize + 100, -4095}
	for _, s := range []site{siteOf(3), comparing} {
		require.True(t, as.expect(s.start().RoundDown()))
		require.True(t, as.lay(s, &text[0]))
	}
	fault := func(sig unix.Signal, code int32, rip, addr hostarch.Addr) (verdict, linux.PtraceRegs) {
		regs := linux.PtraceRegs{Rip: uint64(rip), Rax: 7, Eflags: 0x202}
		info := &linux.SignalInfo{Signo: int32(sig), Code: code}
		info.SetAddr(uint64(addr))
		return as.mend(&regs, info, as.patches.version.Load()), regs
	}
	start := siteOf(3).start()

	v, regs := fault(unix.SIGILL, 2, start+5, start+5)
	require.Equal(t, systemCall, v, "a jump to the syscall instruction")
	require.EqualValues(t, start+7, regs.Rip)
	require.EqualValues(t, 7, regs.Orig_rax)
	v, regs = fault(unix.SIGSEGV, siKernel, comparing.next, 0)
	require.Equal(t, retry, v, "a return to the comparison")
	require.EqualValues(t, comparing.next+compareLen, regs.Rip)
	for _, other := range []hostarch.Addr{start, start - 1, start + 7, comparing.next + compareLen, textAddr + 5*pageSize} {
		v, regs = fault(unix.SIGSEGV, 1, other, 0x1234)
		require.Equal(t, ownFault, v, "%#x", other)
		require.EqualValues(t, other, regs.Rip)
	}
	v, _ = fault(unix.SIGFPE, 1, start+5, start+5)
	require.Equal(t, ownFault, v)

	v, regs = fault(unix.SIGILL, 2, start+3, start+3)
	require.Equal(t, retry, v, "a jump into an instruction")
	require.EqualValues(t, start+3, regs.Rip)
	require.Nil(t, as.patches.pages[start.RoundDown()])
	v, _ = fault(unix.SIGILL, 2, start+3, start+3)
	require.Equal(t, ownFault, v, "there is no site any more")
	old := as.patches.version.Load()
	v, _ = fault(unix.SIGSEGV, segvPKUErr, 0x401000, comparing.start()+1)
	require.Equal(t, retry, v, "reading")
	require.Empty(t, as.patches.pages)
	v, _ = fault(unix.SIGSEGV, segvPKUErr, 0x401000, comparing.start()+1)
	require.Equal(t, ownFault, v)
	v = as.mend(&linux.PtraceRegs{Rip: 0x401000}, &linux.SignalInfo{Signo: int32(unix.SIGSEGV), Code: segvPKUErr}, old)
	require.Equal(t, retry, v, "another thread's fault was first")
}

func TestHasCopies(t *testing.T) {
	const smaps = "1000-3000 r-xp 00000000 00:01 7  /lib/x - y.so\nSize:  8 kB\nAnonymous:             0 kB\nVmFlags: rd ex\n" +
		"3000-4000 r-xp 00002000 00:01 7 /lib/x\nSize: 4 kB\nAnonymous:             4 kB\n" +
		"8000-9000 r-xp 00002000 00:01 7\nSize: 4 kB\n"
	for addr, want := range map[hostarch.Addr]bool{
		0x1000: false, 0x2000: false, 0x3000: true,
		0x8000: true, 0xf000: true, // not known: as if there were some
	} {
		require.Equal(t, want, hasCopies(strings.NewReader(smaps), addr), "%#x", addr)
	}
}
