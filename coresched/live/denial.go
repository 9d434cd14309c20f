package live

import (
	"time"

	"golang.org/x/sys/unix"
)

// An instance that uses less than little of the CPU in a yieldTime, while it wants a
// core and has none, takes nothing from others that would be worth a change of all
// its threads. It is denied only if that lasts for patience times as long: its
// descendants may compute, which is not looked at. One whose core was taken is denied
// after the first yieldTime.
const (
	little   = yieldTime / 10
	patience = 4
)

// shortage is an instance's time without a core that it wants and was not promised.
type shortage struct {
	lasts bool
	used  time.Duration // CPU time of its process, when last looked at
	looks int
}

// begin is for its begin, or, if it does not last, its end; had is how many cores
// the instance had before. It tells whether it has just begun.
func (s *shortage) begin(lasts bool, had int, used func() time.Duration) bool {
	if s.lasts == lasts {
		return false
	}
	switch *s = (shortage{lasts: lasts}); {
	case !lasts:
	case had > 0:
		s.looks = patience - 1
	default:
		s.used = used()
	}
	return lasts
}

// enough tells, after one more yieldTime, whether it has to be denied.
func (s *shortage) enough(used time.Duration) bool {
	computes := used-s.used >= little
	s.used = used
	s.looks++
	return computes || s.looks >= patience
}

// cpuTime is that of a process, without its children; 0: it has ended.
func cpuTime(pid int) time.Duration {
	// As clock_getcpuclockid(3): the process's number inverted, and CPUCLOCK_SCHED.
	const sched = 2
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|sched), &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
