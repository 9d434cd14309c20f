package auto

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"junction/switch/protocol"
)

// TestTranscripts runs testdata. `go test -rewrite` writes it anew, for people to read.
// A "new" begins with a number of queues; in a "run", each line is "ID RATE", for an
// instance's packets per second from now on, or "ID direct", "ID server" and "ID auto",
// what an operator says, or "ID leaves". The argument is for how many seconds that is so.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		var w *world
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" {
				var queues int
				d.ScanArgs(t, "queues", &queues)
				w = newWorld(Options{Queues: queues, Rate: 1000})
				return ""
			}
			var seconds int
			d.ScanArgs(t, "seconds", &seconds)
			for line := range strings.Lines(d.Input) {
				w.tell(t, strings.Fields(line))
			}
			var out strings.Builder
			for range seconds {
				w.advance()
				orders, err := w.decide()
				require.NoError(t, err)
				for _, o := range orders {
					fmt.Fprintf(&out, "%v: i%d to %v at %.0f packets/s: %s\n", w.now, o.ID, o.To, o.Rate, o.Reason)
				}
			}
			return out.String() + w.text()
		})
	})
}

// tell changes an instance.
func (w *world) tell(t *testing.T, words []string) {
	id, err := strconv.ParseUint(words[0], 10, 32)
	require.NoError(t, err)
	m := w.find(uint32(id))
	if m == nil {
		m = w.join(uint32(id), 0)
	}
	switch words[1] {
	case "direct":
		w.operator(m, protocol.Direct)
	case "server":
		w.operator(m, protocol.Server)
	case "auto":
		m.Pinned, m.Claims = false, false
	case "limited":
		m.Limited = true
	case "leaves":
		w.all = slices.DeleteFunc(w.all, func(o *machine) bool { return o == m })
	default:
		m.rate, err = strconv.ParseFloat(words[1], 64)
		require.NoError(t, err)
	}
}

func drawOptions(t *rapid.T) Options {
	return Options{
		Queues: rapid.IntRange(0, 5).Draw(t, "queues"), Rate: 1000,
		Hold:   time.Duration(rapid.IntRange(1, 10).Draw(t, "hold")) * time.Second,
		Period: time.Duration(rapid.IntRange(1, 20).Draw(t, "period")) * time.Second,
		Burst:  rapid.IntRange(1, 6).Draw(t, "burst"),
	}
}

// TestAlways: whatever instances, operators and switches do, no more queues are used
// than there are, orders are few and only for who may be switched, and nobody is
// switched again too soon.
func TestAlways(t *testing.T) { rapid.Check(t, always) }

// FuzzAlways is the same for the fuzzer.
func FuzzAlways(f *testing.F) { f.Fuzz(rapid.MakeFuzz(always)) }

func always(t *rapid.T) {
	w := newWorld(drawOptions(t))
	next := uint32(0)
	somebody := func(f func(t *rapid.T, m *machine)) func(*rapid.T) {
		return func(t *rapid.T) {
			if len(w.all) > 0 {
				f(t, rapid.SampledFrom(w.all).Draw(t, "instance"))
			}
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"join": func(t *rapid.T) {
			if len(w.all) < 12 {
				next++
				w.join(next, rapid.Float64Range(0, 10000).Draw(t, "rate"))
			}
		},
		"leave": somebody(func(_ *rapid.T, m *machine) {
			w.all = slices.DeleteFunc(w.all, func(o *machine) bool { return o == m })
		}),
		"rate":    somebody(func(t *rapid.T, m *machine) { m.rate = rapid.Float64Range(0, 10000).Draw(t, "rate") }),
		"restart": somebody(func(_ *rapid.T, m *machine) { m.Server = 0 }),
		"direct": somebody(func(_ *rapid.T, m *machine) {
			if !m.Limited {
				w.operator(m, protocol.Direct)
			}
		}),
		"server": somebody(func(_ *rapid.T, m *machine) { w.operator(m, protocol.Server) }),
		"auto":   somebody(func(_ *rapid.T, m *machine) { m.Pinned, m.Claims = false, false }),
		"limit": somebody(func(_ *rapid.T, m *machine) {
			if !m.hasQueue() && !m.Claims {
				m.Limited = !m.Limited
			}
		}),
		"switches": func(t *rapid.T) {
			w.took, w.fail = rapid.IntRange(0, 3).Draw(t, "took"), rapid.Bool().Draw(t, "fail")
		},
		"": func(t *rapid.T) {
			w.step = time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond
			w.advance()
			_, err := w.decide()
			require.NoError(t, err)
		},
	})
}

// TestSettles: at steady rates orders come to an end, and then no queue is free or
// another's that somebody should have.
func TestSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(drawOptions(t))
		n := rapid.IntRange(1, 10).Draw(t, "instances")
		for id := range n {
			m := w.join(uint32(id+1), rapid.Float64Range(0, 10000).Draw(t, "rate"))
			if rapid.Bool().Draw(t, "pinned") && w.used() < w.p.o.Queues {
				w.operator(m, protocol.Direct)
			}
		}
		// Each gets a queue and loses it to a busier one, at most, and waits for that.
		long := 4*time.Duration(n)*(w.p.o.Hold+w.p.o.Period) + 60*time.Second
		for w.now < long {
			w.advance()
			_, err := w.decide()
			require.NoError(t, err)
		}
		for range 30 {
			w.advance()
			orders, err := w.decide()
			require.NoError(t, err)
			require.Empty(t, orders, "%s", w.text())
		}
		for _, m := range w.all {
			if m.Mode != protocol.Server || m.rate < 1.01*w.p.o.Rate {
				continue
			}
			require.Equal(t, w.p.o.Queues, w.used(), "%s has no queue:\n%s", m.Name, w.text())
			for _, h := range w.all {
				if h.Mode == protocol.Direct && !h.Pinned {
					require.Less(t, m.rate, 1.01*margin*h.rate, "%s has the queue of %s:\n%s", h.Name, m.Name, w.text())
				}
			}
		}
	})
}

// TestNoPingPong: rates that waver by a fifth each way move nothing for good: a rate
// around the one that gives a queue is no reason to take it back, and two that are
// about as busy do not take turns.
func TestNoPingPong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(drawOptions(t))
		n := rapid.IntRange(1, 8).Draw(t, "instances")
		var base []float64
		for id := range n {
			// Not around the rate at which a queue is taken back.
			base = append(base, rapid.OneOf(rapid.Float64Range(0, 400), rapid.Float64Range(650, 5000)).Draw(t, "rate"))
			w.join(uint32(id+1), 0)
		}
		orders := make(map[uint32]int)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			for i, m := range w.all {
				m.rate = base[i] * rapid.Float64Range(1/1.2, 1.2).Draw(t, "waver")
			}
			w.advance()
			done, err := w.decide()
			require.NoError(t, err)
			for _, o := range done {
				orders[o.ID]++
			}
		}
		// A queue goes from one to a busier one only, so it cannot come round.
		total := 0
		for _, count := range orders {
			total += count
		}
		require.LessOrEqual(t, total, 2*n*max(1, w.p.o.Queues), "%v\n%s", orders, w.text())
	})
}

// TestFirstSight: what an instance has done before it is looked at is no rate.
func TestFirstSight(t *testing.T) {
	p := New(Options{Queues: 1})
	s := []Sample{{ID: 1, Server: 1 << 40}}
	require.Empty(t, p.Step(0, s))
	require.Empty(t, p.Step(time.Second, s))
	rate, reason := p.Verdict(1)
	require.Zero(t, rate)
	require.Contains(t, reason, "5000 packets/s")
	_, reason = p.Verdict(2)
	require.Empty(t, reason)
}
