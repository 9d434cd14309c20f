package auto

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"junction/switch/protocol"
)

// round is one decision.
type round struct {
	p   *Policy
	now time.Duration
	// holders have queues that may be taken, the least busy first.
	holders []*instance
	// others could have one, the busiest first.
	others []*instance
	// taken counts queues that instances have or that are promised, and leaving
	// those of them that are about to be free.
	taken, leaving int
	orders         []Order
}

func (p *Policy) newRound(now time.Duration) *round {
	r := &round{p: p, now: now}
	for _, i := range p.all {
		if i.hasQueue() || i.Claims {
			r.taken++
		}
		switch {
		case i.Switching:
			i.reason = fmt.Sprintf("is being switched to %v mode", i.To)
			if i.To == protocol.Server {
				r.leaving++
			}
		case i.Pinned:
			i.reason = "an operator has decided"
		case i.Mode == protocol.Direct:
			i.reason = fmt.Sprintf("keeps its queue down to %.0f packets/s", p.keep())
			r.holders = append(r.holders, i)
		case i.Limited:
			i.reason = "is limited to a rate, which only the network server keeps"
		case i.rate < p.o.Rate:
			i.reason = fmt.Sprintf("a queue is for %.0f packets/s and more", p.o.Rate)
		default:
			r.others = append(r.others, i)
		}
	}
	slices.SortFunc(r.holders, byRate)
	slices.SortFunc(r.others, func(a, b *instance) int { return byRate(b, a) })
	return r
}

// byRate orders the least busy first, and of two the younger.
func byRate(a, b *instance) int {
	return cmp.Or(cmp.Compare(a.rate, b.rate), cmp.Compare(b.ID, a.ID))
}

func (p *Policy) keep() float64 { return p.o.Rate * keepShare }

// settled tells whether an instance may be switched again.
func (r *round) settled(i *instance) bool {
	if i.moved && r.now-i.since < r.p.o.Hold {
		i.reason = fmt.Sprintf("stays for %v after a switch", r.p.o.Hold)
		return false
	}
	return true
}

// order orders a switch, unless there have been too many.
func (r *round) order(i *instance, o Order) bool {
	if len(r.p.ordered) >= r.p.o.Burst {
		i.reason = fmt.Sprintf("there have been %d switches in %v", r.p.o.Burst, r.p.o.Period)
		return false
	}
	r.p.ordered = append(r.p.ordered, r.now)
	i.moved, i.since, i.reason = true, r.now, o.Reason
	o.ID, o.Rate = i.ID, i.rate
	r.orders = append(r.orders, o)
	if o.To == protocol.Server {
		r.leaving++
	}
	return true
}

// evict takes queues back that operators need.
func (r *round) evict() {
	for len(r.holders) > 0 && r.taken-r.leaving > r.p.o.Queues {
		i := r.holders[0]
		if !r.order(i, Order{To: protocol.Server, Forced: true, Reason: fmt.Sprintf("the least busy, and pinned instances leave too few of %s", queues(r.p.o.Queues))}) {
			return
		}
		r.holders = r.holders[1:]
	}
}

// takeBack takes queues back from who does not need them.
func (r *round) takeBack() {
	r.holders = slices.DeleteFunc(r.holders, func(i *instance) bool {
		return i.rate < r.p.keep() && r.settled(i) &&
			r.order(i, Order{To: protocol.Server, Reason: fmt.Sprintf("fell below %.0f packets/s", r.p.keep())})
	})
}

// give gives queues to the busiest.
func (r *round) give() {
	free := max(0, r.p.o.Queues-r.taken)
	coming := max(0, r.p.o.Queues-r.taken+r.leaving) - free
	for _, i := range r.others {
		switch {
		case !r.settled(i):
		case free > 0:
			if r.order(i, Order{To: protocol.Direct, Reason: fmt.Sprintf("reached %.0f packets/s, and a queue was free", r.p.o.Rate)}) {
				free--
			}
		case coming > 0:
			coming--
			i.reason = "gets the next queue, which is about to be free"
		default:
			r.replace(i)
		}
	}
}

// replace takes the queue of one that is far less busy.
func (r *round) replace(i *instance) {
	i.reason = fmt.Sprintf("busy enough, but whoever has one of %s is pinned, or as busy, or got it only now", queues(r.p.o.Queues))
	for at, h := range r.holders {
		if i.rate < margin*h.rate {
			return // and all others are busier
		}
		if !r.settled(h) {
			continue
		}
		reason := fmt.Sprintf("%s needs the queue more, with %.0f packets/s", i.Name, i.rate)
		if r.order(h, Order{To: protocol.Server, Reason: reason}) {
			r.holders = slices.Delete(r.holders, at, at+1)
			i.reason = "gets the next queue, which is about to be free"
		}
		return
	}
}

func queues(n int) string {
	if n == 1 {
		return "1 queue"
	}
	return fmt.Sprintf("%d queues", n)
}
