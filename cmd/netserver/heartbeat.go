package main

import "time"

// heartbeat finds workers that do not come to the end of a batch.
type heartbeat struct {
	last  []uint64
	since []time.Time
}

// stuck returns for how long the worker that is worst off has been at the same
// batch. beats is as netserver.Server.Beats returns it; an instance that comes
// or goes begins everything anew.
func (h *heartbeat) stuck(beats []uint64) (worst time.Duration) {
	now := time.Now()
	if len(beats) != len(h.last) {
		h.last, h.since = make([]uint64, len(beats)), make([]time.Time, len(beats))
	}
	for i, b := range beats {
		if b != h.last[i] || b%2 == 0 || h.since[i].IsZero() {
			h.last[i], h.since[i] = b, now
		}
		worst = max(worst, now.Sub(h.since[i]))
	}
	return worst
}
