package coresched

import (
	"fmt"
	"time"
)

// Time is the time since an origin that is the same for all that belongs to
// one Machine.
type Time = time.Duration

// CPU is the number of a core of a Machine, from 0 on.
type CPU int32

// NoCPU stands for no core, and as an agent for the one that serves all cores.
const NoCPU CPU = -1

// MaxCPUs is the number of cores that a Machine has at most.
const MaxCPUs = 1024

// Task names a task of a Machine. It is a small number, from 1 on, which is
// used again after the task's end; its sequence number goes on rising then, so
// that what was meant for the old task fails as stale.
type Task uint32

// NoTask stands for no task.
const NoTask Task = 0

// MaxTasks is the number of tasks that a Machine has at most at one time.
const MaxTasks = 1 << 20

// Seq counts a task's messages, or those of an agent. It is never 0 once there
// was a message, and wraps around.
type Seq uint32

func (s Seq) next() Seq {
	if s++; s == 0 {
		s++
	}
	return s
}

// Class tells policies apart what has to be quick and what may wait.
type Class uint8

// The classes, the most urgent first.
const (
	LatencyCritical Class = iota
	BestEffort
	classes
)

// String returns "lc" or "be".
func (c Class) String() string {
	switch c {
	case LatencyCritical:
		return "lc"
	case BestEffort:
		return "be"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Hints are what a task's owner tells policies about it. Policies use those
// that they know of.
type Hints struct {
	// Deadline of the job that the task was woken for; 0: none.
	Deadline Time
	// Group is the instance that the task is a kthread of; 0: none.
	Group uint32
	// Guaranteed is how many cores the group may always have.
	Guaranteed uint16
	// Delay is how long work of the group may wait before the group counts as
	// congested, 0 for what the policy has, up to MaxDelay.
	Delay Time
	// Class is the task's, and the group's.
	Class Class
	// Nice is from -20, the most, to 19.
	Nice int8
}

// MaxDelay is the greatest Hints.Delay.
const MaxDelay = 4 * time.Second

// Least and greatest value of Hints.Nice.
const (
	MinNice = -20
	MaxNice = 19
)
