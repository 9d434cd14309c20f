package sim

import (
	"math/rand/v2"

	cs "junction/coresched"
)

// Job is one request.
type Job struct {
	Service cs.Time
	// Long tells it apart in results.
	Long bool
	// Within is the time from arrival to deadline; 0: none.
	Within cs.Time
}

// Source makes the requests of one instance.
type Source interface {
	// Next returns the time from the last request's arrival, or from the
	// start, to the next one's, and the request. ok is false at the end.
	Next(rng *rand.Rand) (gap cs.Time, j Job, ok bool)
}

// Service is a distribution of service times.
type Service interface {
	Draw(rng *rand.Rand) Job
	// Mean of what Draw returns, in nanoseconds.
	Mean() float64
}

// Fixed is one service time for all.
type Fixed cs.Time

// Draw implements Service.
func (f Fixed) Draw(*rand.Rand) Job { return Job{Service: cs.Time(f)} }

// Mean implements Service.
func (f Fixed) Mean() float64 { return float64(f) }

// Exp is exponential with the given mean.
type Exp cs.Time

// Draw implements Service.
func (e Exp) Draw(rng *rand.Rand) Job { return Job{Service: round(rng.ExpFloat64() * float64(e))} }

// Mean implements Service.
func (e Exp) Mean() float64 { return float64(e) }

// Mix is long with probability Share, else short.
type Mix struct {
	Short, Long cs.Time
	Share       float64
}

// Draw implements Service.
func (m Mix) Draw(rng *rand.Rand) Job {
	if rng.Float64() < m.Share {
		return Job{Service: m.Long, Long: true}
	}
	return Job{Service: m.Short}
}

// Mean implements Service.
func (m Mix) Mean() float64 {
	return m.Share*float64(m.Long) + (1-m.Share)*float64(m.Short)
}

func round(ns float64) cs.Time { return max(1, cs.Time(ns+0.5)) }

// Poisson makes requests at random moments.
type Poisson struct {
	// Gap is the mean time between two, in nanoseconds.
	Gap     float64
	Service Service
}

// Next implements Source.
func (p Poisson) Next(rng *rand.Rand) (cs.Time, Job, bool) {
	gap := round(rng.ExpFloat64() * p.Gap)
	return gap, p.Service.Draw(rng), true
}

// Periodic makes a request each Period, whose deadline is the next one's
// arrival.
type Periodic struct {
	Period, Service cs.Time
}

// Next implements Source.
func (p Periodic) Next(*rand.Rand) (cs.Time, Job, bool) {
	return p.Period, Job{Service: p.Service, Within: p.Period}, true
}

// Recorded makes the requests that it holds, once.
type Recorded struct {
	Arrivals []Arrival
	// Stretch multiplies the time between arrivals; 0: 1.
	Stretch float64
	next    int
	last    cs.Time
}

// latest is when an arrival may be, at most: after 31 years.
const latest = 1e18

// Arrival is a request and when it comes, from the start on.
type Arrival struct {
	At  cs.Time
	Job Job
}

// Next implements Source.
func (r *Recorded) Next(*rand.Rand) (cs.Time, Job, bool) {
	if r.next == len(r.Arrivals) {
		return 0, Job{}, false
	}
	a := r.Arrivals[r.next]
	r.next++
	at := a.At
	if r.Stretch > 0 {
		at = cs.Time(min(float64(at)*r.Stretch, latest))
	}
	gap := at - r.last
	r.last = at
	return gap, a.Job, true
}
