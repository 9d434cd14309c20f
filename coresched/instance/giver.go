package instance

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// Giver is the scheduler's side. One goroutine at a time calls its methods, and
// another one Wait.
type Giver struct {
	*shared
	seq uint32
}

// longestWait bounds what an instance may say of how long a thread has waited.
const longestWait = 10 * time.Second

// NewGiver makes a page, on which the instance is granted kthreads. files are
// for the instance; the caller closes them.
func NewGiver(kthreads int) (g *Giver, files [Files]int, err error) {
	files = [Files]int{-1, -1}
	memory, err := unix.MemfdCreate("junction-kthreads", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, files, fmt.Errorf("make a page: %w", err)
	}
	err = unix.Ftruncate(memory, pageSize)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(memory), unix.F_ADD_SEALS, seals|unix.F_SEAL_SEAL)
	}
	var ends [2]int
	if err == nil {
		ends, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return nil, files, errors.Join(fmt.Errorf("make a page: %w", err), unix.Close(memory))
	}
	// Without it, before Linux 6.16, the peer can have us close descriptors of
	// its choice.
	_ = unix.SetsockoptInt(ends[0], unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	s, err := open(memory, ends[0])
	if err != nil {
		return nil, files, errors.Join(err, unix.Close(ends[1]))
	}
	g = &Giver{shared: s}
	g.page.magic = magic
	g.page.grant.Store(uint64(kthreads))
	if files[0], err = unix.FcntlInt(uintptr(memory), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, files, errors.Join(err, unix.Close(ends[1]), g.Close())
	}
	files[1] = ends[1]
	return g, files, nil
}

// Grant says how many kthreads the instance may have, and which cores they are
// meant to be on. With report the instance rings when it has complied.
func (g *Giver) Grant(kthreads int, cores *cs.CPUSet, report bool) {
	for i := range g.page.cores {
		g.page.cores[i].Store(cores[i])
	}
	g.Report(report)
	g.seq++
	g.page.grant.Store(uint64(g.seq)<<32 | uint64(uint32(kthreads)))
	g.ring()
}

// Report says whether the instance rings when it has complied with a grant.
func (g *Giver) Report(on bool) {
	v := uint32(0)
	if on {
		v = 1
	}
	g.page.report.Store(v)
}

// Settled tells whether the instance says that it has complied with the last
// Grant.
func (g *Giver) Settled() bool { return g.page.settled.Load() == g.seq }

// Ask has the instance look once more at what it wants.
func (g *Giver) Ask() { g.ring() }

// Beat is a sign of life.
func (g *Giver) Beat() { g.page.beat.Add(1) }

// Demand is what an instance wants.
type Demand struct {
	// Want is how many kthreads it could use.
	Want int
	// Waiting is how many of its threads wait for one, of which the first has
	// done so for Longest.
	Waiting int
	Longest time.Duration
}

// Demand copies what the instance wants, at most limit kthreads. What makes no
// sense is made to.
func (g *Giver) Demand(limit int) Demand {
	d := Demand{
		Want:    int(min(g.page.want.Load(), uint32(limit))),
		Waiting: int(min(g.page.waiting.Load(), 1<<20)),
	}
	if since := g.page.since.Load(); since > 0 {
		d.Longest = min(max(0, monotonic()-time.Duration(since)), longestWait)
	}
	return d
}
