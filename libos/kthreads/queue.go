package kthreads

import (
	"slices"
	"time"
)

// actions are what a queue does to threads. They are called in order, and may
// not call the queue.
type actions[T comparable] interface {
	// grant tells a waiter that it holds a token now.
	grant(T)
	// reclaim takes the token of a holder that sleeps. It tells whether it could.
	reclaim(t T) bool
	// yield makes a holder release its token when it leaves its program, which
	// it is told to do now if interrupt is set. It fails if the holder sleeps;
	// then it can be reclaimed.
	yield(t T, interrupt bool) bool
}

// queue decides which threads hold the tokens, and for how long: the pure core
// of this package, without locks or clocks. Times are durations since any start.
//
// Who wants a token gets one if there is one that nobody uses; else waits in
// order of arrival. While threads wait, a holder keeps its token for a quantum.
type queue[T comparable] struct {
	tokens  int
	quantum time.Duration // 0: until it leaves its program by itself
	do      actions[T]

	holders []holding[T] // in the order that they were granted in
	waiters []waiter[T]
	stats   Stats
}

// waiter is a thread without a token, and since when.
type waiter[T comparable] struct {
	thread T
	since  time.Duration
}

// holding is a token in use.
type holding[T comparable] struct {
	thread T
	// since is when its slice began; started is false before that.
	since   time.Duration
	started bool
	told    bool // to yield
}

// acquire asks for a token. If it returns false the thread waits, until grant
// or cancel.
func (q *queue[T]) acquire(t T, now time.Duration) bool {
	if q.takeFree(t, now) {
		return true
	}
	q.waiters = append(q.waiters, waiter[T]{t, now})
	q.stats.Waits++
	q.press(now)
	return false
}

// takeFree is acquire for a thread that does not wait if there is no token.
func (q *queue[T]) takeFree(t T, now time.Duration) bool {
	if len(q.waiters) > 0 || len(q.holders) >= q.tokens && !q.reclaimOne() {
		return false
	}
	q.holders = append(q.holders, holding[T]{thread: t, since: now, started: true})
	return true
}

// start begins the slice of a thread that was granted a token. Until then none
// is taken away from it, however long the host lets it wait.
func (q *queue[T]) start(t T, now time.Duration) {
	if i := q.holder(t); i >= 0 {
		q.holders[i].since, q.holders[i].started = now, true
	}
}

// release gives a token back, if t holds one.
func (q *queue[T]) release(t T) {
	if i := q.holder(t); i >= 0 {
		q.holders = slices.Delete(q.holders, i, i+1)
	}
	q.grantFree()
}

// cancel ends waiting. It is false for a thread that does not wait: it may have
// been granted a token.
func (q *queue[T]) cancel(t T) bool {
	i := slices.IndexFunc(q.waiters, func(w waiter[T]) bool { return w.thread == t })
	if i < 0 {
		return false
	}
	q.waiters = slices.Delete(q.waiters, i, i+1)
	return true
}

// setTokens changes how many threads may execute at once. Holders in excess
// are told to yield at once.
func (q *queue[T]) setTokens(n int, now time.Duration) {
	q.tokens = n
	for i := 0; i < len(q.holders) && q.telling() < q.excess(); {
		if q.holders[i].told || !q.end(i, true) {
			i++
		}
	}
	q.grantFree()
	q.press(now)
}

// press makes holders whose slice is over yield to those that wait.
func (q *queue[T]) press(now time.Duration) {
	for len(q.waiters) > 0 && q.reclaimOne() {
		q.grantFree()
	}
	for i := 0; i < len(q.holders) && q.telling() < q.excess()+len(q.waiters); {
		h := &q.holders[i]
		if h.told || !h.started || now < h.since+q.quantum || !q.end(i, q.quantum > 0) {
			i++
			continue
		}
		q.grantFree()
	}
}

// end takes the token of the i-th holder, or tells it to yield. It tells
// whether the holder has lost it.
func (q *queue[T]) end(i int, interrupt bool) bool {
	h := &q.holders[i]
	for !q.do.reclaim(h.thread) {
		if q.do.yield(h.thread, interrupt) {
			h.told = true
			q.stats.Yields++
			return false
		} // it has gone to sleep just now
	}
	q.holders = slices.Delete(q.holders, i, i+1)
	return true
}

// due returns when press has something to do next, if it has without another event.
func (q *queue[T]) due() (at time.Duration, ok bool) {
	if q.quantum == 0 || q.telling() >= q.excess()+len(q.waiters) {
		return 0, false
	}
	for _, h := range q.holders {
		if end := h.since + q.quantum; h.started && !h.told && (!ok || end < at) {
			at, ok = end, true
		}
	}
	return at, ok
}

// grantFree gives free tokens to those that wait.
func (q *queue[T]) grantFree() {
	for len(q.waiters) > 0 && len(q.holders) < q.tokens {
		t := q.waiters[0].thread
		q.waiters = slices.Delete(q.waiters, 0, 1)
		q.holders = append(q.holders, holding[T]{thread: t})
		q.do.grant(t)
	}
}

// reclaimOne takes the token of one that sleeps, and tells whether that made
// one free.
func (q *queue[T]) reclaimOne() bool { return q.reclaimAny() && len(q.holders) < q.tokens }

// reclaimAny takes the token of one that sleeps, and tells whether there was one.
func (q *queue[T]) reclaimAny() bool {
	i := slices.IndexFunc(q.holders, func(h holding[T]) bool { return q.do.reclaim(h.thread) })
	if i < 0 {
		return false
	}
	q.holders = slices.Delete(q.holders, i, i+1)
	return true
}

func (q *queue[T]) holder(t T) int {
	return slices.IndexFunc(q.holders, func(h holding[T]) bool { return h.thread == t })
}

// excess is how many hold a token beyond those there are.
func (q *queue[T]) excess() int { return max(0, len(q.holders)-q.tokens) }

// telling is how many holders have been told to yield.
func (q *queue[T]) telling() (n int) {
	for _, h := range q.holders {
		if h.told {
			n++
		}
	}
	return n
}

// contended tells whether a thread that goes to sleep should give its token back.
func (q *queue[T]) contended() bool { return len(q.waiters) > 0 || q.excess() > 0 }
