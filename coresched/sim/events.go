package sim

import cs "junction/coresched"

// eventKind is what happens.
type eventKind uint8

const (
	arrival eventKind = iota // who: instance
	finish                   // who: core
	begin                    // who: agent; a round begins
	commit                   // who: agent; a round ends
	timer                    // who: agent
)

// event is something that will happen. gen tells events that were overtaken
// from those that still count.
type event struct {
	at    cs.Time
	order uint64
	gen   uint32
	who   int32
	kind  eventKind
}

// agenda is the events to come, the earliest first; of those at one time, the
// one first put in.
type agenda struct {
	heap  []event
	count uint64
}

func (a *agenda) put(at cs.Time, kind eventKind, who int, gen uint32) {
	a.count++
	a.heap = append(a.heap, event{at, a.count, gen, int32(who), kind})
	i := len(a.heap) - 1
	for i > 0 && a.less(i, (i-1)/2) {
		a.heap[i], a.heap[(i-1)/2] = a.heap[(i-1)/2], a.heap[i]
		i = (i - 1) / 2
	}
}

func (a *agenda) less(i, j int) bool {
	x, y := &a.heap[i], &a.heap[j]
	return x.at < y.at || x.at == y.at && x.order < y.order
}

func (a *agenda) take() (e event, ok bool) {
	if len(a.heap) == 0 {
		return event{}, false
	}
	e = a.heap[0]
	last := len(a.heap) - 1
	a.heap[0] = a.heap[last]
	a.heap = a.heap[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if a.less(child, least) {
				least = child
			}
		}
		if least == i {
			return e, true
		}
		a.heap[i], a.heap[least] = a.heap[least], a.heap[i]
		i = least
	}
}
