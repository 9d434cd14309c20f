package plugin

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// PageTasks is how many tasks have a status word in a page. Others can be
// scheduled as well; only where they may run shows when a transaction fails.
const PageTasks = 16384

// words are the status word of a task in memory: a count, odd while the writer
// is at it; flags; core; sequence number; runtime; and the cores it may run on.
type words struct {
	count   atomic.Uint32
	flags   atomic.Uint32
	cpu     atomic.Int32
	seq     atomic.Uint32
	runtime atomic.Int64
	allowed [cs.MaxCPUs / 64]atomic.Uint64
	_       [40]byte // to a multiple of the cache line
}

// Flags of words.
const (
	present = 1 << iota
	runnable
	onCPU
	pinned
)

// Page is status words in shared memory. It has one writer, and readers in
// other processes, who have it read-only.
type Page struct {
	words []words
	fd    int
	m     []byte
}

// pageSeals: the size stays, and nobody maps it writable any more.
const pageSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE

// ErrPage: a descriptor that is no status page.
var ErrPage = errors.New("not a status page")

// NewPage makes a page of which the caller is the writer.
func NewPage() (*Page, error) {
	fd, err := unix.MemfdCreate("junction-status", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a status page: %w", err)
	}
	p := &Page{fd: fd}
	if err = unix.Ftruncate(fd, pageSize); err == nil {
		err = p.mmap(unix.PROT_READ | unix.PROT_WRITE)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, pageSeals|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a status page: %w", err), p.Close())
	}
	return p, nil
}

// OpenPage attaches a reader to the page that fd is of. The descriptor is
// OpenPage's from then on, also when it fails.
func OpenPage(fd int) (*Page, error) {
	p := &Page{fd: fd}
	err := p.inspect()
	if err == nil {
		err = p.mmap(unix.PROT_READ)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a status page: %w", err), p.Close())
	}
	return p, nil
}

func (p *Page) inspect() error {
	got, err := unix.FcntlInt(uintptr(p.fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("%w: descriptor %d: %w", ErrPage, p.fd, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return err
	}
	if got&pageSeals != pageSeals || st.Size != pageSize {
		return fmt.Errorf("%w: %d bytes with seals %#x", ErrPage, st.Size, got)
	}
	return nil
}

// FD returns the page's descriptor, to pass on. It still belongs to the Page.
func (p *Page) FD() int { return p.fd }

// Close gives memory and descriptor up; nobody may use the Page any more.
func (p *Page) Close() error {
	var err error
	if p.m != nil {
		err = unix.Munmap(p.m)
	}
	p.m, p.words = nil, nil
	return errors.Join(err, unix.Close(p.fd))
}

// Show implements coresched.Board.
func (p *Page) Show(t cs.Task, s cs.Status, allowed *cs.CPUSet) {
	if int(t) >= len(p.words) {
		return
	}
	w := &p.words[t]
	flags := bit(s.Present, present) | bit(s.Runnable, runnable) | bit(s.OnCPU, onCPU) | bit(allowed != nil, pinned)
	w.count.Add(1)
	w.flags.Store(flags)
	w.cpu.Store(int32(s.CPU))
	w.seq.Store(uint32(s.Seq))
	w.runtime.Store(int64(s.Runtime))
	if allowed != nil {
		for i := range w.allowed {
			w.allowed[i].Store(allowed[i])
		}
	}
	w.count.Add(1)
}

func bit(set bool, b uint32) uint32 {
	if set {
		return b
	}
	return 0
}

// Allowed implements coresched.Words. It says yes where it does not know: a
// transaction that is wrong fails.
func (p *Page) Allowed(t cs.Task, c cs.CPU) bool {
	if int(t) >= len(p.words) || c < 0 || c >= cs.MaxCPUs {
		return true
	}
	w := &p.words[t]
	return w.flags.Load()&pinned == 0 || w.allowed[c/64].Load()>>(c%64)&1 != 0
}

// Status returns t's status word. ok is false if it has none, or the writer was
// at it each time.
func (p *Page) Status(t cs.Task) (s cs.Status, ok bool) {
	if int(t) >= len(p.words) {
		return s, false
	}
	w := &p.words[t]
	for range 100 {
		before := w.count.Load()
		flags := w.flags.Load()
		s = cs.Status{
			Present: flags&present != 0, Runnable: flags&runnable != 0, OnCPU: flags&onCPU != 0,
			CPU: cs.CPU(w.cpu.Load()), Seq: cs.Seq(w.seq.Load()), Runtime: cs.Time(w.runtime.Load()),
		}
		if before%2 == 0 && w.count.Load() == before {
			return s, true
		}
	}
	return cs.Status{}, false
}
