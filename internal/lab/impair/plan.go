// Package impair makes a path bad on purpose: it forwards Ethernet frames
// between two interfaces and loses, duplicates, reorders, delays, corrupts and
// slows them down as a Plan says.
//
// What happens to a frame depends on the seed and on the frame's number alone,
// never on time, so a run can be repeated as far as the senders repeat theirs.
// Fate and Line decide; they know neither clock nor socket. Forwarder moves the
// frames.
package impair

import (
	"fmt"
	"time"
)

// Defaults and limits of a Direction.
const (
	defaultReorderDepth = 3
	defaultReorderWait  = 20 * time.Millisecond
	defaultQueue        = 10000
	maxDuration         = time.Minute
)

// Plan says what happens to frames in both directions.
type Plan struct {
	// Seed of all decisions.
	Seed uint64
	// ToServer is for frames from the client's side.
	ToServer Direction
	// ToClient is for frames from the server's side.
	ToClient Direction
}

// Both returns a plan that is the same in both directions.
func Both(seed uint64, d Direction) Plan { return Plan{Seed: seed, ToServer: d, ToClient: d} }

// Direction says what happens to frames that go one way. The zero value passes
// them on as they are. Probabilities are between 0 and 1 for each frame and are
// drawn independently.
type Direction struct {
	// Loss is the probability that a frame is dropped.
	Loss float64
	// Duplicate is the probability that a frame is sent twice.
	Duplicate float64
	// Corrupt is the probability that one bit behind the Ethernet header is
	// inverted, as if a bad NIC had recomputed the frame check sequence.
	Corrupt float64
	// Reorder is the probability that a frame is held back until ReorderDepth
	// later ones have overtaken it, or ReorderWait has passed.
	Reorder      float64
	ReorderDepth int           // 0 is 3
	ReorderWait  time.Duration // 0 is 20 ms
	// Delay is added to every frame, and up to Jitter more. Jitter alone does not
	// reorder frames.
	Delay, Jitter time.Duration
	// Rate is the speed of the link in bits per second; 0 is unlimited. Delays
	// begin when a frame's last bit has passed.
	Rate int64
	// Queue is how many frames may wait; more are dropped. 0 is 10000.
	Queue int
}

// withDefaults returns d with defaults filled in, or what is wrong with it.
func (d Direction) withDefaults() (Direction, error) {
	if d.ReorderDepth == 0 {
		d.ReorderDepth = defaultReorderDepth
	}
	if d.ReorderWait == 0 {
		d.ReorderWait = defaultReorderWait
	}
	if d.Queue == 0 {
		d.Queue = defaultQueue
	}
	return d, d.check()
}

func (d Direction) check() error {
	for name, p := range map[string]float64{
		"Loss": d.Loss, "Duplicate": d.Duplicate, "Corrupt": d.Corrupt, "Reorder": d.Reorder,
	} {
		if !(p >= 0 && p <= 1) { // catches NaN
			return fmt.Errorf("impair: %s %v: want a probability from 0 to 1", name, p)
		}
	}
	for name, t := range map[string]time.Duration{
		"Delay": d.Delay, "Jitter": d.Jitter, "ReorderWait": d.ReorderWait,
	} {
		if t < 0 || t > maxDuration {
			return fmt.Errorf("impair: %s %v: want 0 to %v", name, t, maxDuration)
		}
	}
	if d.ReorderDepth < 0 || d.Rate < 0 || d.Queue < 0 {
		return fmt.Errorf("impair: ReorderDepth %d, Rate %d and Queue %d must not be negative", d.ReorderDepth, d.Rate, d.Queue)
	}
	return nil
}
