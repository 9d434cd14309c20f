package bench

import (
	"math"
	"slices"
)

// Median returns the median of samples, the mean of the middle two if their
// number is even, and NaN if there are none.
func Median(samples []float64) float64 {
	n := len(samples)
	if n == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	if n%2 == 1 {
		return s[n/2]
	}
	return s[n/2-1]/2 + s[n/2]/2
}

// Percentile returns the smallest sample such that at least p percent, from 0 to
// 100, are no greater (nearest rank), and NaN if there are none.
func Percentile(samples []float64, p float64) float64 {
	n := len(samples)
	if n == 0 {
		return math.NaN()
	}
	rank := int(math.Ceil(p / 100 * float64(n)))
	return slices.Sorted(slices.Values(samples))[min(max(rank, 1), n)-1]
}
