package kthreads

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// told counts what an Observer hears.
type told struct{ waiting, settled, woken atomic.Int32 }

func (o *told) Waiting() { o.waiting.Add(1) }
func (o *told) Settled() { o.settled.Add(1) }
func (o *told) Woken()   { o.woken.Add(1) }

// spin has a thread execute until it is interrupted, and returns what ends it.
func spin(t *testing.T, p *Platform, inner *fakePlatform) (c *thread, end func()) {
	c = p.NewContext(nil).(*thread)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			_ = enter(c)
			select {
			case <-stop:
				c.Release()
				return
			default:
			}
		}
	}()
	return c, func() {
		close(stop)
		for {
			select {
			case <-done:
				return
			default:
				c.Interrupt()
			}
		}
	}
}

func soon(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, time.Millisecond)
}

// TestGrantsComeAndGo: tokens are taken away and come back, down to none, and
// the observer hears when threads have complied and when one waits.
func TestGrantsComeAndGo(t *testing.T) {
	inner, o := new(fakePlatform), new(told)
	p := Limit(inner, Options{Tokens: 2, Quantum: time.Hour})
	p.Observe(o)
	_, endA := spin(t, p, inner)
	_, endB := spin(t, p, inner)
	soon(t, func() bool { return inner.executing.Load() == 2 })
	require.Equal(t, 2, p.Demand().Executing)

	p.SetTokens(0)
	soon(t, func() bool { d := p.Demand(); return d.Executing == 0 && d.Waiting == 2 && d.Longest > 0 })
	require.Zero(t, inner.executing.Load())
	require.EqualValues(t, 1, o.settled.Load())
	require.EqualValues(t, 2, o.waiting.Load())

	p.SetTokens(1)
	soon(t, func() bool { return inner.executing.Load() == 1 && p.Demand().Waiting == 1 })
	p.SetTokens(2)
	soon(t, func() bool { return inner.executing.Load() == 2 && p.Demand().Waiting == 0 })
	require.EqualValues(t, 3, o.settled.Load())
	endA()
	endB()
}

// TestPark: what sleeps loses its token, and the first that wakes is told of,
// once; what executes cannot be parked.
func TestPark(t *testing.T) {
	inner, o := new(fakePlatform), new(told)
	p := Limit(inner, Options{Tokens: 2})
	p.Observe(o)
	c := p.NewContext(nil).(*thread)
	c.Context.(*fakeContext).calls = 3
	require.NoError(t, enter(c))
	require.False(t, p.Park(), "it executes")
	turns := p.Demand().Turns
	c.PrepareSleep()
	require.NotEqual(t, turns, p.Demand().Turns)
	require.Zero(t, p.Demand().Executing)
	require.True(t, p.Park())
	require.True(t, p.Park())
	require.Zero(t, o.woken.Load())
	require.NoError(t, enter(c))
	require.NoError(t, enter(c))
	require.EqualValues(t, 1, o.woken.Load())
	require.Equal(t, 1, p.Demand().Executing)
	c.Release()
}

// TestParkRace: a thread that wakes while it is parked either keeps its token or
// is told of: while it executes, nothing is parked.
func TestParkRace(t *testing.T) {
	inner, o := new(fakePlatform), new(told)
	p := Limit(inner, Options{Tokens: 1})
	p.Observe(o)
	done := make(chan int)
	go func() {
		c := p.NewContext(nil).(*thread)
		defer c.Release()
		wrong := 0
		for o.woken.Load() < 100 {
			c.Context.(*fakeContext).calls = 1
			_ = enter(c)
			p.mu.Lock()
			if p.parked {
				wrong++
			}
			p.mu.Unlock()
			c.PrepareSleep()
			runtime.Gosched()
		}
		done <- wrong
	}()
	for {
		select {
		case wrong := <-done:
			require.Zero(t, wrong)
			return
		default:
			p.Park()
			runtime.Gosched()
		}
	}
}
