package instance

import (
	"errors"
	"fmt"
	"time"
)

// Taker is the instance's side. Its methods may be called from any goroutine,
// Wait from one.
type Taker struct{ *shared }

// NewTaker attaches to the page and the doorbell that came from the scheduler.
// The descriptors are NewTaker's from then on, also when it fails.
func NewTaker(files [Files]int) (*Taker, error) {
	s, err := open(files[0], files[1])
	if err != nil {
		return nil, err
	}
	t := &Taker{s}
	if s.page.magic != magic {
		return nil, errors.Join(fmt.Errorf("%w: it begins with %#x", ErrPage, s.page.magic), t.Close())
	}
	return t, nil
}

// Grant is how many kthreads an instance may have. Seq tells grants apart.
type Grant struct {
	Seq      uint32
	Kthreads int
}

// Grant returns the present one.
func (t *Taker) Grant() Grant {
	v := t.page.grant.Load()
	return Grant{uint32(v >> 32), int(uint32(v))}
}

// Settle says that the instance has complied with a grant.
func (t *Taker) Settle(seq uint32) {
	t.page.settled.Store(seq)
	if t.page.report.Load() != 0 {
		t.ring()
	}
}

// Show says what the instance wants, and rings if ring is set.
func (t *Taker) Show(d Demand, ring bool) {
	since := time.Duration(0)
	if d.Waiting > 0 {
		since = monotonic() - d.Longest
	}
	t.page.waiting.Store(uint32(d.Waiting))
	t.page.since.Store(int64(since))
	t.page.want.Store(uint32(d.Want))
	if ring {
		t.ring()
	}
}

// Beat changes as long as the scheduler lives.
func (t *Taker) Beat() uint64 { return t.page.beat.Load() }
