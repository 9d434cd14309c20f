package clients

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// NbodyStart is what nbody prints before it computes.
const NbodyStart = "start"

// ParseNbodyEnd reads what nbody prints when it has computed: the energy of the
// bodies, which is below 0, for they are bound to each other.
func ParseNbodyEnd(line string) (energy float64, err error) {
	value, ok := strings.CutPrefix(line, "end ")
	if ok {
		energy, err = strconv.ParseFloat(value, 64)
	}
	if !ok || err != nil || math.IsNaN(energy) || math.IsInf(energy, 0) || energy >= 0 {
		return 0, fmt.Errorf("nbody: %w: %.40q", ErrOutput, line)
	}
	return energy, nil
}
