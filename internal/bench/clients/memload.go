package clients

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseMemload reads the output of memload: requests answered rightly and
// wrongly, and in nanoseconds the time, the median and 99th percentile latency.
func ParseMemload(out string) (r Result, err error) {
	fields := strings.Fields(out)
	if len(fields) != 5 {
		return r, fmt.Errorf("memload: %w: %.40q", ErrOutput, out)
	}
	var n [5]uint64
	for i, f := range fields {
		if n[i], err = strconv.ParseUint(f, 10, 62); err != nil {
			return r, fmt.Errorf("memload: %w: %.40q", ErrOutput, f)
		}
	}
	if n[0] == 0 || n[2] == 0 {
		return r, fmt.Errorf("memload: %w: no request", ErrOutput)
	}
	return Result{Requests: n[0], Errors: n[1], PerSecond: float64(n[0]) / (float64(n[2]) / 1e9), P50: float64(n[3]) / 1e3, P99: float64(n[4]) / 1e3}, nil
}
