// Package sim runs a policy on a machine that does not exist: cores, agents and
// requests on a virtual clock. The actuator's state machine and the policies
// are those that run live; only time, and what takes how long, is made up.
//
// A run depends on its Config alone: the same gives the same trace, byte for
// byte.
//
// # The model
//
// Requests arrive at instances. An instance without a number of kthreads has a
// thread for each request, woken when it arrives; one with kthreads wakes one
// that is parked, and a kthread that runs takes requests until none is left.
//
// An agent works in rounds: it reads its messages, each at a price, decides by
// what it knows then, and commits, at a price; only at the end of the round is
// checked and done what it decided, so that decisions can be stale. From the
// commit on a core is in its new task's hands; the task's first instruction
// follows a switch later. The agent of all cores has a core of its own besides
// those simulated; agents of single cores take their time from the task there.
package sim
