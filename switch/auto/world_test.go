package auto

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"junction/switch/protocol"
)

// machine is an instance of a world.
type machine struct {
	Sample
	rate  float64
	parts [2]float64 // of packets not counted yet
	ends  int        // steps until a switch ends
	fails bool
}

// world has instances that do as the policy and operators say.
type world struct {
	p        *Policy
	now      time.Duration
	step     time.Duration
	all      []*machine
	took     int // steps that a switch takes
	fail     bool
	ordered  []time.Duration
	switched map[uint32]time.Duration // by the policy
}

func newWorld(o Options) *world {
	return &world{p: New(o), step: time.Second, switched: make(map[uint32]time.Duration)}
}

func (w *world) join(id uint32, rate float64) *machine {
	m := &machine{Sample: Sample{ID: id, Name: fmt.Sprintf("i%d", id)}, rate: rate}
	w.all = append(w.all, m)
	return m
}

func (w *world) find(id uint32) *machine {
	for _, m := range w.all {
		if m.ID == id {
			return m
		}
	}
	return nil
}

// used counts queues.
func (w *world) used() (n int) {
	for _, m := range w.all {
		if m.hasQueue() {
			n++
		}
	}
	return n
}

// operator puts an instance into a mode, if there is a queue for it; if not it waits.
func (w *world) operator(m *machine, to protocol.Mode) {
	m.Pinned, m.Claims = true, false
	switch {
	case m.Switching || m.Mode == to:
	case to == protocol.Direct && w.used() >= w.p.o.Queues:
		m.Claims = true
	default:
		w.begin(m, to)
	}
}

func (w *world) begin(m *machine, to protocol.Mode) {
	m.Switching, m.To, m.ends, m.fails = true, to, w.took, w.fail
	if to == protocol.Direct {
		m.Queue = 0 // a new queue
	}
	if w.took == 0 {
		w.end(m)
	}
}

func (w *world) end(m *machine) {
	m.Switching = false
	if !m.fails {
		m.Mode = m.To
	}
}

// advance lets a step of time pass, and packets.
func (w *world) advance() {
	w.now += w.step
	for _, m := range w.all {
		m.parts[m.Mode] += m.rate * w.step.Seconds()
		n := uint64(m.parts[m.Mode])
		m.parts[m.Mode] -= float64(n)
		if m.Mode == protocol.Direct {
			m.Queue += n
		} else {
			m.Server += n
		}
		if m.Switching {
			if m.ends--; m.ends <= 0 {
				w.end(m)
			}
		}
	}
	for _, m := range w.all { // who waits is the first
		if m.Claims && !m.Switching && w.used() < w.p.o.Queues {
			m.Claims = false
			w.begin(m, protocol.Direct)
		}
	}
}

// decide has the policy decide, checks its orders and carries them out.
func (w *world) decide() ([]Order, error) {
	var samples []Sample
	for _, m := range w.all {
		samples = append(samples, m.Sample)
	}
	orders := w.p.Step(w.now, samples)
	for _, o := range orders {
		if err := w.check(o); err != nil {
			return orders, fmt.Errorf("at %v: order %+v: %w", w.now, o, err)
		}
		w.ordered = append(w.ordered, w.now)
		w.switched[o.ID] = w.now
	}
	// Queues are given before others are free: what is promised must not need that.
	slices.SortStableFunc(orders, func(a, b Order) int { return int(b.To) - int(a.To) })
	for _, o := range orders {
		w.begin(w.find(o.ID), o.To)
		if o.To == protocol.Direct && w.used() > w.p.o.Queues {
			return orders, fmt.Errorf("%d queues of %d are used", w.used(), w.p.o.Queues)
		}
	}
	return orders, nil
}

// check checks what holds for any order.
func (w *world) check(o Order) error {
	m := w.find(o.ID)
	recent := 0
	for _, at := range w.ordered {
		if w.now-at < w.p.o.Period {
			recent++
		}
	}
	last, before := w.switched[o.ID]
	switch {
	case m == nil:
		return fmt.Errorf("no such instance")
	case m.Pinned:
		return fmt.Errorf("it is an operator's")
	case m.Switching || m.Mode == o.To:
		return fmt.Errorf("it is %+v", m.Sample)
	case m.Limited && o.To == protocol.Direct:
		return fmt.Errorf("it is limited")
	case recent >= w.p.o.Burst:
		return fmt.Errorf("%d orders before it in %v", recent, w.p.o.Period)
	case before && !o.Forced && w.now-last < w.p.o.Hold:
		return fmt.Errorf("it was switched at %v", last)
	case o.Reason == "":
		return fmt.Errorf("no reason")
	}
	return nil
}

// text shows all instances.
func (w *world) text() string {
	var b strings.Builder
	for _, m := range w.all {
		rate, reason := w.p.Verdict(m.ID)
		mode := m.Mode.String()
		if m.Switching {
			mode = "to " + m.To.String()
		}
		fmt.Fprintf(&b, "  %s: %s, %.0f packets/s: %s\n", m.Name, mode, rate, reason)
	}
	return b.String()
}
