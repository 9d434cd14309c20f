package engine

import (
	"sync/atomic"
	"time"
)

// Stats is a snapshot of where programs have executed.
type Stats struct {
	// AddressSpaces are those that programs have executed in: one for each
	// program that was started and each fork.
	AddressSpaces uint64 `json:"total"`
	// Inside are the address spaces that have been in this process, Elsewhere
	// those that have executed on the second platform. One can have been both.
	Inside    uint64 `json:"inproc"`
	Elsewhere uint64 `json:"systrap"`
	// Moves is how often one address space had to leave this process for
	// another, and MovingSeconds how long that took in all, in seconds.
	Moves         uint64  `json:"moves"`
	MovingSeconds float64 `json:"moving_seconds"`
	// SwitchesInside and SwitchesElsewhere are how often programs were entered,
	// which is once for each system call, fault and interrupt. A thread is counted
	// when it ends or executes another program.
	SwitchesInside    uint64 `json:"inproc_switches"`
	SwitchesElsewhere uint64 `json:"systrap_switches"`
	// PatchedCalls and TrappedCalls are the system calls in this process by
	// how they came: by a jump from a patched site, or by a signal.
	PatchedCalls uint64 `json:"patched_calls"`
	TrappedCalls uint64 `json:"trapped_calls"`
}

// counters are what Stats is read from.
type counters struct {
	spaces, here, stub, moves atomic.Uint64
	moving                    atomic.Int64  // nanoseconds
	inside, outside           atomic.Uint64 // Switches of threads that have ended
	calls, traps              atomic.Uint64 // system calls of threads that have ended
}

func (c *counters) snapshot() Stats {
	return Stats{
		AddressSpaces:     c.spaces.Load(),
		Inside:            c.here.Load(),
		Elsewhere:         c.stub.Load(),
		Moves:             c.moves.Load(),
		MovingSeconds:     time.Duration(c.moving.Load()).Seconds(),
		SwitchesInside:    c.inside.Load(),
		SwitchesElsewhere: c.outside.Load(),
		PatchedCalls:      c.calls.Load(),
		TrappedCalls:      c.traps.Load(),
	}
}
