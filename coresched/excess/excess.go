// Package excess tells an instance that uses far more CPU time than it was granted
// from one that does not. What an instance says of itself, how many kthreads it could
// use and that it has complied with a grant, costs a liar nothing; CPU time does not
// lie.
//
// An instance is more than its kthreads: goroutines of its network and of its kernel
// run beside them, collect garbage, and answer frames that are for no thread. So what
// it may use is generous: two cores for each that it has and one more; while it has
// none, what it is guaranteed and three quarters of a core, for it also executes for
// moments of which it does not tell. What it uses beyond that is its debt,
// which what it leaves unused does not make less than none. A debt of a second of CPU
// time is an excess, and half of that is suspicion. In a hand-off an instance goes on
// for some milliseconds with what it is giving up, or begins with what it does not
// have yet; that is less than it may use beside before and after.
//
// It does no I/O and reads no clock.
package excess

import (
	"time"

	cs "junction/coresched"
)

// Limits of an Account.
const (
	// Burst is the debt, in CPU time, that is an excess, and BurstPerCore what is added
	// for each core that can be handed over.
	Burst        = time.Second
	BurstPerCore = 10 * time.Millisecond
	// FirstHold is for how long an instance is held the first time, and twice as long
	// each further time, up to LongestHold.
	FirstHold   = time.Second
	LongestHold = 64 * time.Second
	// Forgiven is after how many times as long as its last hold one without an excess
	// is as good as new.
	Forgiven = 10
)

// longest bounds the time between two looks, for arithmetic's sake.
const longest = time.Hour

// Standing is what an instance may do from some moment on.
type Standing struct {
	Cores      int  // that it can reach, up to cs.MaxCPUs
	Has        int  // cores that its kthreads have
	Guaranteed int  // that it gets as soon as it wants
	Wants      bool // it says that it could use one
	// Free: what it does harms nobody, because it is held, or has only what others
	// leave.
	Free bool
}

// allowance is what it may use, in thousandths of a core.
func (s *Standing) allowance() int64 {
	const core = 1000
	has, guaranteed := int64(min(s.Has, cs.MaxCPUs)), int64(min(s.Guaranteed, cs.MaxCPUs))
	if s.Wants {
		has = max(has, guaranteed)
	}
	switch {
	case s.Free:
		return core * int64(min(s.Cores, cs.MaxCPUs))
	case has > 0:
		return core * max(2*has+1, guaranteed)
	}
	return core*guaranteed + core*3/4
}

// burst is the debt that is an excess.
func (s *Standing) burst() cs.Time { return Burst + cs.Time(min(s.Cores, cs.MaxCPUs))*BurstPerCore }

// Verdict is what comes out of a look.
type Verdict uint8

// Verdicts.
const (
	Fine    Verdict = iota
	Suspect         // it may just not have said what it wants
	Excess          // it is to be held, for as long as Held says
)

// Account is that of one instance. The zero value has to Begin. It is for one goroutine
// at a time.
type Account struct {
	rate    int64 // thousandths of a core
	burst   cs.Time
	since   cs.Time // of rate
	allowed cs.Time // since the last look, up to since
	debt    cs.Time
	hold    cs.Time // the last
	over    cs.Time // its end
}

// Begin begins anew: what was used before does not count. Earlier holds do.
func (a *Account) Begin(now cs.Time, s Standing) {
	a.rate, a.burst, a.since, a.allowed, a.debt = s.allowance(), s.burst(), now, 0, 0
}

// Stand says how the instance stands from now on.
func (a *Account) Stand(now cs.Time, s Standing) {
	a.accrue(now)
	a.rate, a.burst = s.allowance(), s.burst()
}

func (a *Account) accrue(now cs.Time) {
	passed := min(max(now-a.since, 0), longest)
	a.since = max(a.since, now)
	a.allowed = min(a.allowed+passed/1000*cs.Time(a.rate), longest*cs.MaxCPUs)
}

// Look judges the CPU time that the instance has used since the last look, or Begin.
// After an Excess it has none, and is held.
func (a *Account) Look(now, used cs.Time) Verdict {
	a.accrue(now)
	a.debt = max(0, a.debt+min(max(0, used), longest*cs.MaxCPUs)-a.allowed)
	a.allowed = 0
	switch {
	case a.debt >= a.burst:
		a.debt = 0
		a.sentence(now)
		return Excess
	case a.debt >= a.burst/2:
		return Suspect
	}
	return Fine
}

func (a *Account) sentence(now cs.Time) {
	if a.hold == 0 || now-a.over > Forgiven*a.hold {
		a.hold = FirstHold
	} else {
		a.hold = min(2*a.hold, LongestHold)
	}
	a.over = now + a.hold
}

// Held returns how long the last hold is, and when it is over; zero if there was none.
func (a *Account) Held() (long, over cs.Time) { return a.hold, a.over }

// Debt returns what it has used beyond what it may, as of the last look.
func (a *Account) Debt() cs.Time { return a.debt }
