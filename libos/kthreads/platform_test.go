package kthreads

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePlatform has threads that spin in Switch until they are interrupted, or
// for calls, make so many system calls first.
type fakePlatform struct {
	platform.Platform
	executing, most atomic.Int32
}

type fakeContext struct {
	platform.Context // not called: panics
	p                *fakePlatform
	pending          atomic.Bool
	calls            int
}

func (p *fakePlatform) NewContext(context.Context) platform.Context { return &fakeContext{p: p} }

func (c *fakeContext) Switch(context.Context, platform.MemoryManager, *arch.Context64, int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	n := c.p.executing.Add(1)
	defer c.p.executing.Add(-1)
	for most := c.p.most.Load(); n > most && !c.p.most.CompareAndSwap(most, n); most = c.p.most.Load() {
	}
	if c.calls > 0 {
		c.calls--
		return nil, hostarch.NoAccess, nil
	}
	for !c.pending.Swap(false) {
		runtime.Gosched()
	}
	return nil, hostarch.NoAccess, platform.ErrContextInterrupt
}

func (c *fakeContext) Interrupt()                 { c.pending.Store(true) }
func (*fakeContext) Release()                     {}
func (*fakeContext) PrepareSleep()                {}
func (*fakeContext) PrepareUninterruptibleSleep() {}
func (*fakeContext) PrepareStop()                 {}

// enter makes one Switch.
func enter(c platform.Context) error {
	_, _, err := c.Switch(nil, nil, nil, -1)
	return err
}

// TestSpinnersTakeTurns: of eight threads that never leave by themselves, no
// more than there are tokens execute at once, and each gets its turns.
func TestSpinnersTakeTurns(t *testing.T) {
	for _, tokens := range []int{1, 2} {
		inner := new(fakePlatform)
		p := Limit(inner, Options{Tokens: tokens, Quantum: 50 * time.Microsecond})
		var turns [8]atomic.Int32
		var stop atomic.Bool
		var all sync.WaitGroup
		for i := range turns {
			all.Go(func() {
				c := p.NewContext(nil)
				defer c.Release()
				for !stop.Load() {
					_ = enter(c)
					turns[i].Add(1)
				}
			})
		}
		for i := range turns {
			for turns[i].Load() < 20 {
				runtime.Gosched()
			}
		}
		stop.Store(true)
		// The last to spin are not interrupted by others any more: nobody waits.
		ended := make(chan struct{})
		go func() { all.Wait(); close(ended) }()
		for done := false; !done; {
			select {
			case <-ended:
				done = true
			default:
				p.SetTokens(1)
				p.with(func(q *queue[*thread]) {
					for _, h := range q.holders {
						h.thread.Context.Interrupt()
					}
				})
				runtime.Gosched()
			}
		}
		require.EqualValues(t, tokens, inner.most.Load())
		require.NotZero(t, p.Stats().Yields)
		require.NotZero(t, p.Stats().Waits)
	}
}

// forgetful is a fakeContext that forgets.
type forgetful struct{ fakeContext }

func (c *forgetful) Forget() { c.pending.Store(false) }

type forgetfulPlatform struct{ fakePlatform }

func (p *forgetfulPlatform) NewContext(context.Context) platform.Context {
	return &forgetful{fakeContext{p: &p.fakePlatform}}
}

// TestForget: an interrupt that was forgotten ends neither the next Switch nor
// the next wait for a token.
func TestForget(t *testing.T) {
	p := Limit(new(forgetfulPlatform), Options{Tokens: 1, Quantum: time.Hour})
	c := p.NewContext(nil).(*thread)
	defer c.Release()
	c.Interrupt()
	require.Equal(t, platform.ErrContextInterrupt, enter(c))
	c.Interrupt()
	c.Forget()
	require.False(t, c.pending.Load())
	require.False(t, c.Context.(*forgetful).pending.Load())
	c.Interrupt()
	require.Equal(t, platform.ErrContextInterrupt, enter(c), "a new interrupt")
}

// TestSleepersMakeRoom: with one token, threads that call and sleep never wait
// for ever, and nothing is interrupted.
func TestSleepersMakeRoom(t *testing.T) {
	const threads, rounds = 6, 500
	inner := new(fakePlatform)
	p := Limit(inner, Options{Tokens: 1, Quantum: time.Hour})
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			c := p.NewContext(nil)
			defer c.Release()
			for range rounds {
				c.(*thread).Context.(*fakeContext).calls = 3
				for range 3 {
					if err := enter(c); err != nil {
						t.Error(err)
					}
				}
				c.PrepareSleep()
				runtime.Gosched()
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, inner.most.Load())
	require.Zero(t, p.Stats().Yields)
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(t, p.q.holders, "tokens that their threads took with them")
}

// reloaded is a context that was interrupted before it was entered.
type reloaded struct {
	platform.Context // not called: panics
	calls            []string
}

func (c *reloaded) Switch(context.Context, platform.MemoryManager, *arch.Context64, int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	c.calls = append(c.calls, "switch")
	return &linux.SignalInfo{Signo: int32(platform.SignalInterrupt)}, hostarch.NoAccess, platform.ErrContextSignal
}

func (c *reloaded) PullFullState(platform.AddressSpace, *arch.Context64) error {
	c.calls = append(c.calls, "pull")
	return nil
}

func (c *reloaded) FullStateChanged() { c.calls = append(c.calls, "changed") }

type noMemory struct{ platform.MemoryManager }

func (noMemory) AddressSpace() platform.AddressSpace { return nil }

// TestInterruptReloadsRegisters: systrap, whose interrupts are signals, loads
// all registers after each.
func TestInterruptReloadsRegisters(t *testing.T) {
	inner := new(reloaded)
	c := &thread{Context: inner, p: Limit(new(fakePlatform), Options{Tokens: 1}), granted: make(chan struct{}, 1), interrupted: make(chan struct{}, 1)}
	_, _, err := c.Switch(nil, noMemory{}, nil, -1)
	require.ErrorIs(t, err, platform.ErrContextSignal)
	require.Equal(t, []string{"switch", "pull", "changed"}, inner.calls)
}

// TestInterruptEndsWaiting: a signal reaches a thread that waits for a token
// although the holder never lets go.
func TestInterruptEndsWaiting(t *testing.T) {
	p := Limit(new(fakePlatform), Options{Tokens: 1})
	holder, waiter := p.NewContext(nil), p.NewContext(nil)
	spinning := make(chan error)
	go func() { spinning <- enter(holder) }()
	for p.Platform.(*fakePlatform).executing.Load() == 0 {
		runtime.Gosched()
	}
	waiting := make(chan error)
	go func() { waiting <- enter(waiter) }()
	for p.Stats().Waits == 0 {
		runtime.Gosched()
	}
	waiter.Interrupt()
	require.ErrorIs(t, <-waiting, platform.ErrContextInterrupt)
	holder.Interrupt()
	require.ErrorIs(t, <-spinning, platform.ErrContextInterrupt)
	require.ErrorIs(t, enter(waiter), platform.ErrContextInterrupt, "the inner platform saw it too")
}

// TestInterruptBeforeWaiting: one that comes just before is not missed.
func TestInterruptBeforeWaiting(t *testing.T) {
	p := Limit(new(fakePlatform), Options{Tokens: 1})
	c := p.NewContext(nil)
	c.Interrupt()
	require.ErrorIs(t, enter(c), platform.ErrContextInterrupt)
	require.Zero(t, p.Stats().Waits)
}

// TestSetTokens: fewer tokens take effect on threads that execute, more on
// threads that wait.
func TestSetTokens(t *testing.T) {
	inner := new(fakePlatform)
	p := Limit(inner, Options{Tokens: 4, Quantum: time.Hour})
	var stop atomic.Bool
	var all sync.WaitGroup
	threads := make([]platform.Context, 4)
	for i := range threads {
		threads[i] = p.NewContext(nil)
		all.Go(func() {
			for !stop.Load() {
				_ = enter(threads[i])
			}
		})
	}
	await := func(n int32) {
		for inner.executing.Load() != n {
			runtime.Gosched()
		}
	}
	for _, n := range []int{4, 1, 3, 2, 4} {
		p.SetTokens(n)
		await(int32(n))
	}
	stop.Store(true)
	for _, c := range threads {
		c.Interrupt()
	}
	all.Wait()
}

// BenchmarkUncontended is what a token costs a thread that has it.
func BenchmarkUncontended(b *testing.B) {
	inner := new(fakePlatform)
	for name, c := range map[string]platform.Context{
		"bare":    inner.NewContext(nil),
		"limited": Limit(inner, Options{Tokens: 1, Quantum: DefaultQuantum}).NewContext(nil),
	} {
		b.Run(name, func(b *testing.B) {
			f, ok := c.(*fakeContext)
			if !ok {
				f = c.(*thread).Context.(*fakeContext)
			}
			f.calls = b.N + 1
			b.ReportAllocs()
			for range b.N {
				_ = enter(c)
			}
		})
	}
}
