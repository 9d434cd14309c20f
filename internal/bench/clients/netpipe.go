package clients

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseNetpipe reads the file that NPtcp writes for one size: its bytes, the
// rate in Mbit/s and the time of one way in seconds.
func ParseNetpipe(out string, bytes int) (bitsPerSecond, seconds float64, err error) {
	fields := strings.Fields(out)
	if len(fields) != 3 || fields[0] != strconv.Itoa(bytes) {
		return 0, 0, fmt.Errorf("NPtcp: %w: %.60q", ErrOutput, out)
	}
	if bitsPerSecond, err = positive(fields[1]); err == nil {
		seconds, err = positive(fields[2])
	}
	if err == nil && (bitsPerSecond == 0 || seconds == 0) {
		err = fmt.Errorf("%w: nothing was transferred", ErrOutput)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("NPtcp: %w", err)
	}
	const mega = 1e6
	return bitsPerSecond * mega, seconds, nil
}
