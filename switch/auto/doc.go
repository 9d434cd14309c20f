// Package auto decides which instances have queues of their own: the busiest, by
// packets per second, up to a number of queues. It is pure: counters and a clock
// in, orders out.
//
// What keeps it calm:
//
//   - Rates are smoothed.
//   - A free queue is for who has Options.Rate, and is kept down to half of that.
//     Another's queue is for who has half as much again as that other.
//   - An instance stays in a mode for Options.Hold, unless its queue is needed for
//     one that an operator has put into direct mode.
//   - In no Options.Period are there more than Options.Burst orders.
//
// An order may fail. The next samples show it, and the instance is left alone for
// Options.Hold.
package auto
