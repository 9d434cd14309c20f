package auto

import (
	"cmp"
	"math"
	"slices"
	"time"

	"junction/switch/protocol"
)

// Options configures a Policy. What is 0 has a default, but Queues.
type Options struct {
	// Queues is how many instances may have a queue of their own at once, those
	// that an operator has put there included.
	Queues int
	// Rate is from how many packets per second, both ways together, an instance is
	// worth a queue. Default 5,000, which cost the network server some 2 % of a
	// processor.
	Rate float64
	// Smooth is the time constant of the rates. Default 1 s.
	Smooth time.Duration
	// Hold is how long an instance stays in a mode. Default 5 s.
	Hold time.Duration
	// In no Period are there more than Burst orders. Default 10 in 10 s.
	Period time.Duration
	Burst  int
}

// DefaultRate is Options.Rate's default.
const DefaultRate = 5000

// Parts of rates; see the package's comment.
const (
	keepShare = 0.5
	margin    = 1.5
)

func (o *Options) defaults() {
	o.Rate = cmp.Or(o.Rate, DefaultRate)
	o.Smooth = cmp.Or(o.Smooth, time.Second)
	o.Hold = cmp.Or(o.Hold, 5*time.Second)
	o.Period = cmp.Or(o.Period, 10*time.Second)
	o.Burst = cmp.Or(o.Burst, 10)
}

// Sample is what is known of an instance at some time.
type Sample struct {
	ID   uint32
	Name string // for reasons
	// Server and Queue count its packets, both ways together, by each path. One
	// that is smaller than before has begun anew.
	Server, Queue uint64
	Mode          protocol.Mode
	// Switching: it is not in one mode alone now, but goes To another.
	Switching bool
	To        protocol.Mode
	// Pinned: an operator has decided on its mode. Claims: that is direct mode, for
	// which it still has no queue.
	Pinned, Claims bool
	// Limited: it may not be in direct mode.
	Limited bool
}

// hasQueue: on the way to or from direct mode it has one, too.
func (s *Sample) hasQueue() bool { return s.Mode == protocol.Direct || s.Switching }

// Order is a switch that is to be made, and why.
type Order struct {
	ID     uint32
	To     protocol.Mode
	Rate   float64 // packets per second
	Reason string
	// Forced: Queues are too few for those that operators have put into direct mode.
	Forced bool
}

// Policy decides. It is for one goroutine.
type Policy struct {
	o       Options
	all     map[uint32]*instance
	ordered []time.Duration // in the last Period
}

// instance is what the policy knows of one.
type instance struct {
	Sample
	at     time.Duration // of the Sample
	rate   float64
	moved  bool          // its mode has changed, or should have, while it was looked at,
	since  time.Duration // and when
	reason string        // why it is in its mode
}

// New makes a Policy that has seen nobody.
func New(o Options) *Policy {
	o.defaults()
	return &Policy{o: o, all: make(map[uint32]*instance)}
}

// Options returns the options, with defaults.
func (p *Policy) Options() Options { return p.o }

// Verdict tells an instance's rate, in packets per second, and why it is in the
// mode that it is in; none of one that is not in the last samples.
func (p *Policy) Verdict(id uint32) (rate float64, reason string) {
	if i := p.all[id]; i != nil {
		return i.rate, i.reason
	}
	return 0, ""
}

// Step takes samples of all instances and returns what is to be done. now is the
// time since some start; it does not go back.
func (p *Policy) Step(now time.Duration, samples []Sample) []Order {
	p.observe(now, samples)
	p.ordered = slices.DeleteFunc(p.ordered, func(at time.Duration) bool { return now-at >= p.o.Period })
	r := p.newRound(now)
	r.evict()
	r.takeBack()
	r.give()
	return r.orders
}

// observe brings all up to date.
func (p *Policy) observe(now time.Duration, samples []Sample) {
	next := make(map[uint32]*instance, len(samples))
	for _, s := range samples {
		i := p.all[s.ID]
		if i == nil {
			i = &instance{Sample: s, at: now} // counters count from here
		}
		i.update(now, s, p.o.Smooth)
		next[s.ID] = i
	}
	p.all = next
}

func (i *instance) update(now time.Duration, s Sample, smooth time.Duration) {
	if dt := now - i.at; dt > 0 {
		packets := since(i.Server, s.Server) + since(i.Queue, s.Queue)
		rate := packets / dt.Seconds()
		i.rate += (rate - i.rate) * (1 - math.Exp(-float64(dt)/float64(smooth)))
		i.at = now
	} else {
		s.Server, s.Queue = i.Server, i.Queue // counted the next time
	}
	if s.Mode != i.Mode {
		i.moved, i.since = true, now
	}
	i.Sample = s
}

// since is how much has been added to a counter.
func since(before, now uint64) float64 {
	if now < before {
		return float64(now)
	}
	return float64(now - before)
}
