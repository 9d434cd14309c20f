package clients

import (
	"fmt"
	"strings"
)

// ParseMicro reads a line of the output of micro: an operation and the time, in
// nanoseconds, that one of it takes. No operation takes no time at all.
func ParseMicro(line string) (operation string, ns float64, err error) {
	operation, value, ok := strings.Cut(line, " ")
	if !ok || operation == "" {
		return "", 0, fmt.Errorf("micro: %w: %.40q", ErrOutput, line)
	}
	if ns, err = positive(value); err != nil {
		return "", 0, fmt.Errorf("micro: %s: %w", operation, err)
	}
	if ns == 0 {
		return "", 0, fmt.Errorf("micro: %s: %w: no time at all", operation, ErrOutput)
	}
	return operation, ns, nil
}
