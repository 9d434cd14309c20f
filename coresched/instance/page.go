package instance

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// Files is how many descriptors an instance is given: the page and its end of
// the doorbell.
const Files = 2

// magic begins a page; its last digits are the layout's version.
const magic = 0x6a6b74687264_0001

// layout is the page. Each side writes cache lines of its own.
type layout struct {
	magic uint64
	_     [56]byte

	// The scheduler's.
	grant  atomic.Uint64 // sequence number << 32 | kthreads
	beat   atomic.Uint64
	report atomic.Uint32 // the instance is to ring when it has complied
	_      [44]byte
	cores  [cs.MaxCPUs / 64]atomic.Uint64

	// The instance's.
	want    atomic.Uint32 // kthreads
	settled atomic.Uint32 // the sequence number of the last grant that is complied with
	waiting atomic.Uint32
	_       [4]byte
	since   atomic.Int64 // when the thread that waits longest began to; 0: none waits
	_       [40]byte
}

// ErrPage: a descriptor that is no page of this version.
var ErrPage = errors.New("not the page of an instance's kthreads; use programs of one release")

const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

// shared is what both sides have.
type shared struct {
	page   *layout
	m      []byte
	memory int
	bell   *os.File
	rings  atomic.Uint64 // sent
}

// ring wakes the other side.
func (s *shared) ring() {
	conn, err := s.bell.SyscallConn()
	if err != nil {
		return // closed
	}
	s.rings.Add(1)
	_ = conn.Control(func(fd uintptr) {
		// EAGAIN: so many are unheard that one more makes no difference.
		_ = unix.Send(int(fd), []byte{1}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
}

// Wait blocks until the other side rings. Its error says that it never will
// again, or that this side was closed.
func (s *shared) Wait() error {
	var b [256]byte
	_, err := s.bell.Read(b[:])
	return err
}

// Silence ends the present and any later Wait.
func (s *shared) Silence() {
	_ = s.bell.SetReadDeadline(time.Unix(1, 0)) // fails if it is closed already
}

// Close gives the page up. Nobody may use it any more; a Wait has to have ended.
func (s *shared) Close() error {
	err := errors.Join(unix.Munmap(s.m), unix.Close(s.memory), s.bell.Close())
	s.page, s.m = nil, nil
	return err
}

// open maps the page of a descriptor. Both descriptors are the result's, also
// when it fails.
func open(memory, bell int) (s *shared, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(memory), unix.Close(bell))
		}
	}()
	got, err := unix.FcntlInt(uintptr(memory), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: descriptor %d: %w", ErrPage, memory, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(memory, &st); err != nil {
		return nil, err
	}
	if got&seals != seals || st.Size != pageSize {
		return nil, fmt.Errorf("%w: %d bytes with seals %#x", ErrPage, st.Size, got)
	}
	if err := unix.SetNonblock(bell, true); err != nil { // tells os.NewFile to poll it
		return nil, err
	}
	s = &shared{memory: memory}
	if err := s.mmap(); err != nil {
		return nil, err
	}
	s.bell = os.NewFile(uintptr(bell), "doorbell")
	return s, nil
}

var startMonotonic, startTime = readClock()

func readClock() (time.Duration, time.Time) {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail with this clock
	return time.Duration(ts.Nano()), time.Now()
}

// monotonic is CLOCK_MONOTONIC, which both sides have.
func monotonic() time.Duration { return startMonotonic + time.Since(startTime) }
