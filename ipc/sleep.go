package ipc

import "sync/atomic"

// sleeper is the part of the doorbell protocol that belongs to the side that
// sleeps. Its word is even while it is awake and odd while it may be asleep,
// and has another value each time: 64 bits never come round again.
type sleeper struct {
	word *atomic.Uint64
	n    uint64
}

// attachSleeper takes a word over, from whatever the last sleeper left there.
func attachSleeper(word *atomic.Uint64) sleeper {
	s := sleeper{word, word.Load() | 1}
	s.awake()
	return s
}

// asleep announces sleep. It is a full barrier: the look at the ring that must
// follow is not moved before it.
func (s *sleeper) asleep() {
	s.n++
	s.word.Store(s.n)
}

// awake takes the announcement back. The bell must be cleared before the next
// asleep: cleared after it, the ring that ends that sleep could be lost.
func (s *sleeper) awake() {
	s.n++
	s.word.Store(s.n)
}

// ringer is the part of the protocol that belongs to the side that wakes.
type ringer struct {
	word *atomic.Uint64
	rang uint64 // the value of word that has been rung for
}

// due says whether to ring, after the caller has published what to wake for.
// It says so once for each sleep.
func (r *ringer) due() bool {
	v := r.word.Load()
	if v&1 == 0 || v == r.rang {
		return false
	}
	r.rang = v
	return true
}
