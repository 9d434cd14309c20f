package sim

import (
	"errors"
	"fmt"

	cs "junction/coresched"
)

// Cost is what takes how long.
type Cost struct {
	Name string
	// Wake is how long an agent that sleeps takes to see a message; 0: it spins.
	Wake cs.Time
	// Message is the agent's time for one message, where one agent serves all
	// cores.
	Message cs.Time
	// Commit is the agent's time for a transaction, More for each further one
	// of a group.
	Commit, More cs.Time
	// Switch is the time from a commit to the target's first instruction on a
	// core that nobody had, Push on one that is taken from somebody.
	Switch, Push cs.Time
	// LocalMessage, LocalCommit and LocalSwitch are the same for an agent on
	// the core that it decides for.
	LocalMessage, LocalCommit, LocalSwitch cs.Time
}

// Cost models.
var (
	// Free is for comparison with queueing theory: nothing takes time.
	Free = Cost{Name: "free"}
	// Ghost is ghOSt's kernel (SOSP 2021, table 3): messages 265 ns to a global
	// and 725 ns to a local agent; commits 888 ns locally, 668 ns remotely and
	// 3964 ns for a group of ten, the target running 1772 ns after the start of
	// a remote one. A group's further transactions cost (3964-668)/9. Agents
	// spin.
	Ghost = Cost{
		Name: "ghost", Message: 265, Commit: 668, More: 366, Switch: 1104, Push: 1104,
		LocalMessage: 725, LocalCommit: 888,
	}
	// Stock is a stock kernel as measured on the virtual machine that junction is
	// developed on (medians): a flag in shared memory 0.3 µs, sched_setaffinity
	// 0.7 µs, futex wake-up 5.4 µs, a core handed over on the same core 2.7 µs,
	// forced by a signal 13 µs. Agents sleep. The tail of each, of milliseconds
	// where SCHED_OTHER is involved, is not in it.
	Stock = Cost{
		Name: "stock", Wake: 5_400, Message: 310, Commit: 700, More: 700, Switch: 5_400, Push: 13_000,
		LocalMessage: 310, LocalCommit: 700, LocalSwitch: 2_700,
	}
)

// ErrCost: no such cost model.
var ErrCost = errors.New("no such cost model")

// CostByName returns the cost model called ghost, stock or free.
func CostByName(name string) (Cost, error) {
	for _, c := range []Cost{Ghost, Stock, Free} {
		if c.Name == name {
			return c, nil
		}
	}
	return Cost{}, fmt.Errorf("%w: %q; take ghost, stock or free", ErrCost, name)
}

// round is the agent's time for a round of n messages and k transactions.
func (c *Cost) round(local bool, g cs.Grouping, n, k int) cs.Time {
	message, commit, more := c.Message, c.Commit, c.More
	if local {
		message, commit, more = c.LocalMessage, c.LocalCommit, c.LocalCommit
	}
	if g == cs.Single {
		more = commit
	}
	t := cs.Time(n) * message
	if k > 0 {
		t += commit + cs.Time(k-1)*more
	}
	return t
}
