// Package actors are processes that the benchmarks of core scheduling start and
// watch: threads that say when they run, a policy that says when it decides, and
// light instances. A light instance is not a library OS: it is a process that
// speaks the monitor's protocol and the page of coresched/instance, so that there
// can be a thousand of them. All are roles of one program, which calls Run.
package actors

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// roles by their names. They get what the command line says beside.
var roles = map[string]func(args []string) error{
	"threads": threads,
	"idle":    idle,
	"rotor":   rotor,
	"taker":   taker,
	"relay":   instance(relay, untilTold),
	"burner":  instance(burner, untilTold),
	"server":  instance(server, forEver),
	"idler":   instance(idler, untilTold),
}

// Run plays the role that args[0] names until the standard input ends.
func Run(args []string) error {
	if len(args) == 0 || roles[args[0]] == nil {
		return fmt.Errorf("actor %q: there are %s", args, strings.Join(slices.Sorted(maps.Keys(roles)), ", "))
	}
	if err := roles[args[0]](args[1:]); err != nil {
		return fmt.Errorf("actor %s: %w", args[0], err)
	}
	return nil
}

// untilTold returns when the standard input ends.
func untilTold() error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

var startMonotonic, startTime = readClock()

func readClock() (time.Duration, time.Time) {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail with this clock
	return time.Duration(ts.Nano()), time.Now()
}

// Clock is CLOCK_MONOTONIC, which all processes have, and policies too.
func Clock() time.Duration { return startMonotonic + time.Since(startTime) }

// asleep sleeps for a while, on a thread of its own.
func asleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}

// compute uses the CPU for a while.
func compute(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}
