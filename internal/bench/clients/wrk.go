package clients

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	wrkRequests = regexp.MustCompile(`(?m)^ *(\d+) requests in `)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec: +(\S+)$`)
	wrkLatency  = regexp.MustCompile(`(?m)^ +(50|99)% +([\d.]+)(us|ms|s|m|h) *$`)

	// wrkErrorLines are there only if there were errors.
	wrkErrorLines = map[string]*regexp.Regexp{
		"Non-2xx":       regexp.MustCompile(`(?m)^ +Non-2xx or 3xx responses: (\d+)$`),
		"Socket errors": regexp.MustCompile(`(?m)^ +Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)$`),
	}

	microseconds = map[string]float64{"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
)

// ParseWrk reads the output of `wrk --latency` (version 4). Socket errors,
// timeouts and responses other than 2xx and 3xx count as errors.
func ParseWrk(out string) (Result, error) {
	requests, rate := wrkRequests.FindStringSubmatch(out), wrkRate.FindStringSubmatch(out)
	if requests == nil || rate == nil {
		return Result{}, fmt.Errorf("wrk: %w: no result", ErrOutput)
	}
	var r Result
	var err1, err2 error
	r.Requests, err1 = strconv.ParseUint(requests[1], 10, 64)
	r.PerSecond, err2 = positive(rate[1])
	return r, errors.Join(err1, err2, r.wrkLatencies(out), r.wrkErrors(out))
}

func (r *Result) wrkLatencies(out string) error {
	found := map[string]float64{}
	for _, m := range wrkLatency.FindAllStringSubmatch(out, -1) {
		f, err := positive(m[2])
		if err != nil {
			return fmt.Errorf("wrk: %w", err)
		}
		found[m[1]] = f * microseconds[m[3]]
	}
	if len(found) != 2 {
		return fmt.Errorf("wrk: %w: no latencies", ErrOutput)
	}
	r.P50, r.P99 = found["50"], found["99"]
	return nil
}

func (r *Result) wrkErrors(out string) error {
	var counts []string
	for label, re := range wrkErrorLines {
		if m := re.FindStringSubmatch(out); m != nil {
			counts = append(counts, m[1:]...)
		} else if strings.Contains(out, label) {
			return fmt.Errorf("wrk: %w: %s", ErrOutput, label)
		}
	}
	for _, c := range counts {
		n, err := strconv.ParseUint(c, 10, 64)
		if err != nil {
			return fmt.Errorf("wrk: %w: errors %.40q", ErrOutput, c)
		}
		r.Errors += n
	}
	return nil
}
