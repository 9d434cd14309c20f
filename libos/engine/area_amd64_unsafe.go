//go:build amd64

package engine

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
)

const pageSize = hostarch.PageSize

// area is what a host thread needs to enter and leave the program. It lies
// outside the Go heap, is found through the GS base, and is written by its
// thread only. run_amd64.s knows its layout from area.h.
//
// Addresses of Go objects in it are uintptr: they are set right before the
// program is entered and mean nothing after; until then the caller's frame
// keeps the objects alive, and the Go heap does not move.
type area struct {
	self     uintptr
	hostFS   uintptr
	hostSP   uintptr
	hostBP   uintptr
	regs     uintptr // *linux.PtraceRegs
	fp       uintptr // the program's XSAVE area
	fpSize   uintptr
	rip      uintptr
	selector uint64  // Syscall User Dispatch reads the first byte
	stop     uintptr // *uint32: not 0 keeps the program from being entered
	xmask    uint64  // components of the extended state that are the program's
	signo    uint64
	code     int64
	addr     uint64
	err      uint64
	trap     uint64
	pending  uint64 // signals, bit n-1 for n, that arrived while callEntry ran
	prsp     uint64 // the program's stack pointer while callEntry runs
	mxcsr    uint64 // what Go code runs with
	arch     uint64 // of a system call that trapped, linux/audit.h
	plain    uint64 // 1: plain moves can save and restore the common extended state
	tid      int32
	owner    uint64 // areaMagic less the FS base of the program, while it executes
}

// Areas lie together above all programs, each at the bottom of its thread's
// alternate signal stack: sigHandler finds its area from the stack pointer and
// tells an area from a program's GS base by the upper half. Trampolines look for
// the owner, who has the thread's FS base: a program can read the GS base, go on
// in another thread of this process and write it again.
const (
	areaOwner   = 176
	areaMagic   = 0x5f3c91a7
	areasTop    = 0x5600
	areaSize    = 64 << 10
	areaStack   = 8 << 10 // where the stack starts: after the area and a guard page
	areaScratch = 2048    // where the scratch stack of enter and callEntry ends
)

// areas counts the areas ever made. They are not given back: the Go runtime
// ends hardly a thread, and one that it makes instead would have to get an FS
// base that was another's to take its area for its own.
var areas atomic.Uint32

// newArea makes the calling thread's area and switches Syscall User Dispatch
// on for it. The thread must be locked to its goroutine.
func newArea() (*area, error) {
	n := uintptr(areas.Add(1) - 1)
	if n >= 1<<32/areaSize {
		return nil, errors.New("more threads than there are areas")
	}
	p := areasTop<<32 + n*areaSize
	for _, m := range []struct{ offset, size uintptr }{{0, pageSize}, {areaStack, areaSize - areaStack}} {
		_, _, errno := unix.Syscall6(unix.SYS_MMAP, p+m.offset, m.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
		if errno != 0 {
			return nil, fmt.Errorf("memory for a thread's area: %w", errno)
		}
	}
	stack := linux.SignalStack{Addr: uint64(p + areaStack), Size: areaSize - areaStack}
	if _, _, errno := unix.RawSyscall(unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&stack)), 0, 0); errno != 0 {
		return nil, fmt.Errorf("setting a thread's alternate signal stack: %w", errno)
	}
	a := *(**area)(unsafe.Pointer(&p)) // p is not Go memory
	const defaultMXCSR = 0x1f80        // Intel SDM vol. 1, 11.6.4
	a.self, a.hostFS, a.xmask, a.plain, a.mxcsr, a.tid = p, fsBase(), xmask, plainMoves, defaultMXCSR, int32(unix.Gettid())
	const prSysDispatchOn = 1
	if err := unix.Prctl(unix.PR_SET_SYSCALL_USER_DISPATCH, prSysDispatchOn, hostTextLow, hostTextHigh-hostTextLow, p+unsafe.Offsetof(a.selector)); err != nil {
		return nil, fmt.Errorf("switching Syscall User Dispatch on: %w", err)
	}
	setThreadArea(a)
	return a, nil
}

// attachThread gives the calling goroutine's thread an area, if it has none.
func attachThread() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if ownArea() != nil {
		return nil
	}
	_, err := newArea()
	return err
}

// ownArea returns the calling thread's area, or nil. A new thread inherits
// the GS base of the one that made it: the area says whose it is.
//
//go:nosplit
func ownArea() *area {
	a := threadArea()
	if a == nil || a.hostFS != fsBase() {
		return nil
	}
	return a
}

// checkLayout compares area with area.h, and what run_amd64.s relies on.
func checkLayout() error {
	var a area
	for field, offsets := range map[string][2]uintptr{
		"hostFS":   {unsafe.Offsetof(a.hostFS), 8},
		"hostSP":   {unsafe.Offsetof(a.hostSP), 16},
		"hostBP":   {unsafe.Offsetof(a.hostBP), 24},
		"regs":     {unsafe.Offsetof(a.regs), 32},
		"fp":       {unsafe.Offsetof(a.fp), 40},
		"fpSize":   {unsafe.Offsetof(a.fpSize), 48},
		"rip":      {unsafe.Offsetof(a.rip), 56},
		"selector": {unsafe.Offsetof(a.selector), 64},
		"stop":     {unsafe.Offsetof(a.stop), 72},
		"xmask":    {unsafe.Offsetof(a.xmask), 80},
		"signo":    {unsafe.Offsetof(a.signo), 88},
		"code":     {unsafe.Offsetof(a.code), 96},
		"addr":     {unsafe.Offsetof(a.addr), 104},
		"err":      {unsafe.Offsetof(a.err), 112},
		"trap":     {unsafe.Offsetof(a.trap), 120},
		"pending":  {unsafe.Offsetof(a.pending), 128},
		"prsp":     {unsafe.Offsetof(a.prsp), 136},
		"mxcsr":    {unsafe.Offsetof(a.mxcsr), 144},
		"arch":     {unsafe.Offsetof(a.arch), 152},
		"plain":    {unsafe.Offsetof(a.plain), 160},
		"tid":      {unsafe.Offsetof(a.tid), 168},
		"owner":    {unsafe.Offsetof(a.owner), areaOwner},
	} {
		if offsets[0] != offsets[1] {
			return fmt.Errorf("%s of the thread's area lies at %d, in area.h at %d", field, offsets[0], offsets[1])
		}
	}
	var g guest
	if unsafe.Sizeof(a) > areaScratch/2 || unsafe.Offsetof(g.tid)-unsafe.Offsetof(g.stop) != 4 {
		return errors.New("the thread's area reaches into its scratch stack, or guest.tid does not follow guest.stop")
	}
	return nil
}

// Implemented in run_amd64.s.
func enter(a *area) uint64
func threadArea() *area
func fsBase() uintptr
func setThreadArea(a *area)
func addrOfHandler() uintptr
func addrOfCallEntry() uintptr
func addrOfForeignGS() uintptr

// gsNotOurs is where callEntry gives up finding the area.
var gsNotOurs = uint64(addrOfForeignGS())

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// Results of run: those of enter, and one more. From leftByCall on it is the
// patched site with that number, less leftByCall.
const (
	leftBySignal = 1
	notEntered   = 2
	noArea       = 3
	leftByCall   = 16
)

// run enters the program with the thread's area set up from g, until it is left.
//
//go:nosplit
//go:norace
func run(g *guest) uint64 {
	entersyscall()
	a := ownArea()
	if a == nil {
		exitsyscall()
		return noArea
	}
	a.regs, a.fp, a.fpSize = g.regs, g.fp, g.fpSize
	a.stop = uintptr(unsafe.Pointer(&g.stop))
	a.signo = 0
	how := enter(a)
	g.signo, g.code, g.addr, g.err, g.trap, g.arch = a.signo, a.code, a.addr, a.err, a.trap, a.arch
	g.pending, a.pending = a.pending, 0 // none comes any more: RIP is Go's
	exitsyscall()
	return how
}
