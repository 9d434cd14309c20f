package clients

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseUDPPing reads the output of udpping: round trip times in microseconds,
// in the order in which they were measured, and the number of datagrams without answer.
func ParseUDPPing(out string) (rtts []float64, lost uint64, err error) {
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if line == "lost" {
			lost++
			continue
		}
		ns, err := strconv.ParseUint(line, 10, 53)
		if err != nil {
			return nil, 0, fmt.Errorf("udpping: %w: %.40q", ErrOutput, line)
		}
		rtts = append(rtts, float64(ns)/1000)
	}
	return rtts, lost, nil
}
