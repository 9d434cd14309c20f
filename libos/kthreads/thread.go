package kthreads

import (
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// States of a thread. All but none are those of one that holds a token; the
// thread itself changes running and asleep into each other, whoever holds the
// platform's lock changes asleep to none and running to yielding.
const (
	none     = iota // holds no token
	asleep          // waits for an event
	running         // executes its program, or is served by the libOS
	yielding        // as running, and releases the token when the program is left
)

// thread implements platform.Context: one that needs a token to execute.
type thread struct {
	platform.Context
	forgetter forgetter // Context, if it is one
	p         *Platform
	state     atomic.Uint32
	sleeps    atomic.Uint64 // how often it kept its token asleep; its own to write

	// sliceEnd is when others may have the token that the thread got last.
	sliceEnd time.Duration

	// queued is set while the thread may be waiting for a token.
	queued atomic.Bool
	// pending: an interrupt that the thread has not looked for.
	pending atomic.Bool
	// granted and interrupted wake a thread that waits.
	granted, interrupted chan struct{}
}

// Switch implements platform.Context.Switch.
func (t *thread) Switch(ctx context.Context, mm platform.MemoryManager, ac *arch.Context64, cpu int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	if !t.take() {
		return nil, hostarch.NoAccess, platform.ErrContextInterrupt
	}
	info, at, err := t.Context.Switch(ctx, mm, ac, cpu)
	if err == platform.ErrContextSignal && info.Signo == int32(platform.SignalInterrupt) {
		if err := t.reload(mm, ac); err != nil {
			return nil, hostarch.NoAccess, err
		}
	}
	if t.p.contended.Load() {
		t.checkSlice()
	}
	return info, at, err
}

// take sees that the thread has a token, or returns false when it is interrupted.
// Who has one and has not slept needs no more than a look.
func (t *thread) take() bool {
	switch t.state.Load() {
	case running:
		return true
	case asleep:
		if t.state.CompareAndSwap(asleep, running) {
			return true
		}
	case yielding:
		t.giveUp()
	}
	return t.acquire()
}

// reload makes systrap load all registers when the thread is entered next. Its
// stub does not by itself when an interrupt came between choosing a thread and
// entering it: the thread goes on with another's vector registers. A signal to
// the program, the Sentry's own reason to interrupt, changes all registers anyway.
func (t *thread) reload(mm platform.MemoryManager, ac *arch.Context64) error {
	if err := t.PullFullState(mm.AddressSpace(), ac); err != nil {
		return err
	}
	t.FullStateChanged()
	return nil
}

// checkSlice ends the thread's slice if it is over. A thread that makes system
// calls all the time does it itself: it may keep the processor that the watcher
// would need.
func (t *thread) checkSlice() {
	if now := t.p.now(); now >= t.sliceEnd {
		t.p.with(func(q *queue[*thread]) { q.press(now) })
	}
	if t.state.Load() == yielding {
		t.giveUp()
	}
}

// acquire gets a token, or returns false when the thread is interrupted.
func (t *thread) acquire() bool {
	at := t.p.now()
	return t.p.takeFree(t, at) || t.wait(at)
}

// wait waits for a token.
func (t *thread) wait(at time.Duration) bool {
	t.queued.Store(true)
	defer t.queued.Store(false)
	if t.pending.Swap(false) {
		return false
	}
	select {
	case <-t.interrupted: // of an earlier wait
	default:
	}
	got := false
	t.p.with(func(q *queue[*thread]) {
		// Who goes to sleep says so and then looks at contended (rest); this
		// sets contended and then looks who sleeps.
		t.p.contended.Store(true)
		t.sliceEnd = at + q.quantum
		if got = q.acquire(t, at); got {
			t.state.Store(running)
		} else {
			t.p.observer.Waiting()
		}
	})
	return got || t.await()
}

// await waits in the queue.
func (t *thread) await() bool {
	select {
	case <-t.granted:
	case <-t.interrupted:
		cancelled := false
		t.p.with(func(q *queue[*thread]) { cancelled = q.cancel(t) })
		if cancelled {
			return false
		}
		<-t.granted
	}
	now := t.p.now()
	t.p.with(func(q *queue[*thread]) {
		t.sliceEnd = now + q.quantum
		q.start(t, now)
	})
	return true
}

// Interrupt implements platform.Context.Interrupt. It also ends waiting for a token.
func (t *thread) Interrupt() {
	t.pending.Store(true)
	t.Context.Interrupt()
	if t.queued.Load() {
		select {
		case t.interrupted <- struct{}{}:
		default:
		}
	}
}

// forgetter is a context that can be told that its interrupts up to now have
// been seen to.
type forgetter interface{ Forget() }

// Forget takes back interrupts that have been seen to otherwise: they do not end
// the next Switch. The caller is the thread itself, outside of Switch, which then
// has to look whether there is another reason for one. To yield, it is not told
// there.
func (t *thread) Forget() {
	if t.pending.Load() {
		t.pending.Store(false)
	}
	if t.forgetter != nil {
		t.forgetter.Forget()
	}
}

// rest lets others have the token while the thread sleeps.
func (t *thread) rest() {
	if t.state.CompareAndSwap(running, asleep) {
		t.sleeps.Store(t.sleeps.Load() + 1)
		if !t.p.contended.Load() {
			return
		}
	}
	if t.state.Load() != none {
		t.giveUp()
	}
}

// giveUp releases the token, if the thread has one. It must not be in Switch.
func (t *thread) giveUp() {
	t.p.with(func(q *queue[*thread]) {
		if t.state.Swap(none) != none {
			q.release(t)
		}
	})
}

// PrepareSleep implements platform.Context.PrepareSleep.
func (t *thread) PrepareSleep() {
	t.rest()
	t.Context.PrepareSleep()
}

// PrepareUninterruptibleSleep implements platform.Context.PrepareUninterruptibleSleep.
func (t *thread) PrepareUninterruptibleSleep() {
	t.rest()
	t.Context.PrepareUninterruptibleSleep()
}

// PrepareStop implements platform.Context.PrepareStop.
func (t *thread) PrepareStop() {
	t.rest()
	t.Context.PrepareStop()
}

// Release implements platform.Context.Release.
func (t *thread) Release() {
	t.giveUp()
	t.Context.Release()
}

// byState are the queue's actions on threads. The platform's lock is held.
type byState struct{}

func (byState) grant(t *thread) {
	t.state.Store(running)
	t.granted <- struct{}{}
}

func (byState) reclaim(t *thread) bool { return t.state.CompareAndSwap(asleep, none) }

func (byState) yield(t *thread, interrupt bool) bool {
	if !t.state.CompareAndSwap(running, yielding) {
		return false
	}
	if interrupt {
		t.Context.Interrupt()
	}
	return true
}
