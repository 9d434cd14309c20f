//go:build amd64

package engine

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// fakeSpace is an address space whose threads are goroutines that keep to the
// protocol of Switch and run without executing a program.
type fakeSpace struct {
	*addressSpace
	executing atomic.Int32
}

// fakeStub stands for the second platform's address space.
type fakeStub struct{ platform.AddressSpace }

// enter is Switch. It calls f where the program would execute in this process.
func (s *fakeSpace) enter(c *switchContext, f func()) {
	if !s.here.Load() && !c.claim() {
		c.stubAS = fakeStub{}
		c.outside++
		return
	}
	c.stubAS = nil
	c.inside++
	atomic.StoreInt32(&c.tid, int32(os.Getpid())) // a thread to signal that is always there
	if atomic.LoadUint32(&c.stop) == 0 {
		f()
	}
	atomic.StoreInt32(&c.tid, 0)
	if atomic.LoadUint32(&c.stop) != 0 {
		c.as.noteLeft()
		atomic.StoreUint32(&c.stop, 0)
	}
}

func newFakePlatform(policy Policy) *Platform {
	p := new(Platform)
	p.slot.counters = &p.counters
	p.SetPolicy(policy)
	return p
}

func (s *fakeSpace) newThread() *switchContext {
	c := &switchContext{as: s.addressSpace}
	s.join(c)
	return c
}

// withoutUnmapping keeps the slot from unmapping the test itself.
func withoutUnmapping(t *testing.T) {
	saved := hostRanges
	hostRanges = []hostarch.AddrRange{userRange}
	t.Cleanup(func() { hostRanges = saved })
}

// TestSlotHoldsOneAddressSpace: while address spaces are exchanged as often as
// possible, no thread of one is in the program while a thread of another is,
// and none is counted twice or not at all.
func TestSlotHoldsOneAddressSpace(t *testing.T) {
	withoutUnmapping(t)
	for name, policy := range map[string]Policy{"always": {}, "soon": {Saving: 1, Move: 1}} {
		t.Run(name, func(t *testing.T) {
			const threads, turns = 4, 2000
			p := newFakePlatform(policy)
			spaces := []*fakeSpace{{addressSpace: newAddressSpace(p)}, {addressSpace: newAddressSpace(p)}, {addressSpace: newAddressSpace(p)}}
			var wrong atomic.Int32
			var all sync.WaitGroup
			for _, s := range spaces {
				for range threads {
					all.Go(func() {
						c := s.newThread()
						for range turns {
							s.enter(c, func() {
								s.executing.Add(1)
								runtime.Gosched()
								for _, other := range spaces {
									if other != s && other.executing.Load() != 0 {
										wrong.Add(1)
									}
								}
								s.executing.Add(-1)
							})
						}
						s.part(c)
					})
				}
			}
			all.Wait()
			require.Zero(t, wrong.Load(), "threads of two address spaces were in the program at once")
			stats := p.Stats()
			require.EqualValues(t, len(spaces)*threads*turns, stats.SwitchesInside+stats.SwitchesElsewhere)
			require.NotZero(t, stats.Moves)
			for _, s := range spaces {
				p.slot.leave(s.addressSpace)
				require.False(t, s.here.Load())
			}
		})
	}
}

// TestSlotStopsThoseThatStay: a thread that never leaves the program by itself
// is told to when another address space takes the slot.
func TestSlotStopsThoseThatStay(t *testing.T) {
	withoutUnmapping(t)
	p := newFakePlatform(Policy{})
	a, b := &fakeSpace{addressSpace: newAddressSpace(p)}, &fakeSpace{addressSpace: newAddressSpace(p)}
	entered, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		c := a.newThread()
		a.enter(c, func() {
			close(entered)
			for atomic.LoadUint32(&c.stop) == 0 {
				runtime.Gosched()
			}
		})
	}()
	<-entered
	ran := false
	b.enter(b.newThread(), func() { ran = true })
	<-left
	require.True(t, ran)
	require.EqualValues(t, 1, p.Stats().Moves)
}

// TestReleasedSlotIsFree: an address space that ends leaves the slot to the next.
func TestReleasedSlotIsFree(t *testing.T) {
	withoutUnmapping(t)
	p := newFakePlatform(Policy{Move: 1})
	for range 3 {
		s := &fakeSpace{addressSpace: newAddressSpace(p)}
		c, ran := s.newThread(), false
		s.enter(c, func() { ran = true })
		require.True(t, ran)
		s.part(c)
		p.slot.leave(s.addressSpace)
	}
	require.EqualValues(t, 3, p.Stats().Inside)
	require.Zero(t, p.Stats().Moves)
}
