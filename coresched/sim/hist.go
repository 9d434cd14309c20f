package sim

import (
	"math"
	"math/bits"

	cs "junction/coresched"
)

// Hist counts times. Quantiles are right to 1/128; the mean is exact.
type Hist struct {
	n       uint64
	sum     float64
	max     cs.Time
	buckets []uint64
}

const (
	histBits = 7 // buckets between powers of two: 1<<histBits
	histSub  = 1 << histBits
)

// Add counts t, which is not negative.
func (h *Hist) Add(t cs.Time) {
	i := bucket(t)
	for i >= len(h.buckets) {
		h.buckets = append(h.buckets, make([]uint64, histSub)...)
	}
	h.buckets[i]++
	h.n++
	h.sum += float64(t)
	h.max = max(h.max, t)
}

// bucket numbers times: below histSub each has its own, above each power of two
// has histSub.
func bucket(t cs.Time) int {
	shift := max(0, bits.Len64(uint64(t))-histBits-1)
	return shift<<histBits + int(t>>shift)
}

// upper returns the greatest time of bucket i.
func upper(i int) cs.Time {
	shift := max(0, i>>histBits-1)
	return cs.Time(i-shift<<histBits+1)<<shift - 1
}

// Count returns how many were added.
func (h *Hist) Count() uint64 { return h.n }

// Mean returns the mean, 0 if nothing was added.
func (h *Hist) Mean() float64 {
	if h.n == 0 {
		return 0
	}
	return h.sum / float64(h.n)
}

// Quantile returns the least time that a share q of all, from 0 to 1, do not
// exceed; 0 if nothing was added.
func (h *Hist) Quantile(q float64) cs.Time {
	left := uint64(max(1, math.Ceil(q*float64(h.n)-1e-6))) // a share may be a little too much, as 0.07 of 100 is
	for i, n := range h.buckets {
		if n >= left {
			return min(upper(i), h.max)
		}
		left -= n
	}
	return h.max
}
