// Package clients reads what real network clients print: redis-benchmark, wrk,
// iperf3, NetPIPE and this project's udpping and micro. What they print is not trusted: what cannot
// be understood is an error, never a zero.
package clients

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// ErrOutput says that a client's output is not what it should be.
var ErrOutput = errors.New("output not understood")

// Result is what a client that sends requests has seen.
type Result struct {
	Requests  uint64  // 0 if the client does not say
	Errors    uint64  // requests that failed or were answered wrongly
	PerSecond float64 // requests per second
	P50, P99  float64 // latency, microseconds
}

// positive parses a finite number that is not negative.
func positive(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return 0, fmt.Errorf("%w: number %.40q", ErrOutput, s)
	}
	return f, nil
}
