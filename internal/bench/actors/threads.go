package actors

import (
	"fmt"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// noticed is what a thread takes for not having run: more than reading the clock
// takes, less than a switch to another thread and back.
const noticed = 2 * time.Microsecond

// Of threads that sleep in turns: for how long they compute, and then sleep. One
// wakes while the other still computes, and waits for the core.
const (
	ThreadComputes = 300 * time.Microsecond
	ThreadSleeps   = 150 * time.Microsecond
)

// threads runs two threads that look at the clock without end, and write down on
// a board when they run again. With a further argument they sleep in turns. It
// prints their numbers.
func threads(args []string) error {
	b, args, err := boardOf(args)
	if err != nil {
		return err
	}
	for i := range b.Actors {
		go func() {
			runtime.LockOSThread()
			fmt.Println(unix.Gettid())
			b.Actors[i].watch(len(args) > 0)
		}()
	}
	return untilTold()
}

func (a *Actor) watch(sleeps bool) {
	began := Clock()
	for last := began; ; {
		now := Clock()
		if now-last > noticed {
			a.Runs.Add(now, 0)
		}
		last = now
		if sleeps && now-began > ThreadComputes {
			a.Leaves.Add(Clock(), 0)
			asleep(ThreadSleeps)
			began = Clock()
		}
	}
}

// idle runs as many threads as its argument says that wake once in a second and
// sleep again. It prints their numbers.
func idle(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("how many threads? %q", args)
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := range n {
		go func() {
			runtime.LockOSThread()
			fmt.Println(unix.Gettid())
			for asleep(time.Second * time.Duration(i) / time.Duration(n)); ; {
				asleep(time.Second)
			}
		}()
	}
	return untilTold()
}
