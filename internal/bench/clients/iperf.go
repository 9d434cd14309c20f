package clients

import (
	"encoding/json"
	"fmt"
)

// ParseIperf reads the output of `iperf3 -J` and returns the bits per second
// that arrived. An error that iperf3 itself reports is returned as one; its exit
// status says nothing.
func ParseIperf(out []byte) (bitsPerSecond float64, err error) {
	var doc struct {
		Error string
		End   struct {
			SumReceived *struct {
				Bytes         float64
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return 0, fmt.Errorf("iperf3: %w: %w", ErrOutput, err)
	}
	if doc.Error != "" {
		return 0, fmt.Errorf("iperf3: %s", doc.Error)
	}
	if doc.End.SumReceived == nil || doc.End.SumReceived.Bytes <= 0 || doc.End.SumReceived.BitsPerSecond <= 0 {
		return 0, fmt.Errorf("iperf3: %w: nothing received", ErrOutput)
	}
	return doc.End.SumReceived.BitsPerSecond, nil
}
