package netserver

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestRotaShares: sources that always have frames, of any sizes, get bytes in
// proportion to their weights, within 1 %, and no source waits for more than a
// round of all others' turns.
func TestRotaShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r rota
		n := rapid.IntRange(2, 6).Draw(t, "sources")
		sources, sent, sizes := make([]share, n), make([]int64, n), make([]int64, n)
		weights, waited := int64(0), make([]int64, n)
		var order []*share
		for i := range sources {
			sources[i].weight = rapid.Int64Range(1, 20).Draw(t, "weight")
			sizes[i] = rapid.Int64Range(14, quantum).Draw(t, "frame")
			weights += sources[i].weight
			order = append(order, &sources[i])
			r.join(&sources[i])
		}
		const rounds = 400
		for total := int64(0); total < rounds*weights*quantum; {
			s := r.next()
			require.NotNil(t, s, "somebody waits")
			i := slices.Index(order, s)
			waited[i] = 0
			turn := int64(0)
			for s.credit > 0 {
				s.credit -= sizes[i]
				turn += sizes[i]
			}
			require.True(t, r.over(s))
			s.end(true)
			r.join(s)
			sent[i] += turn
			total += turn
			for k := range sources {
				if k != i {
					waited[k] += turn
					require.LessOrEqual(t, waited[k], 2*(weights+int64(n))*quantum, "starved")
				}
			}
		}
		sum := int64(0)
		for _, b := range sent {
			sum += b
		}
		for i := range sources {
			want := float64(sum) * float64(sources[i].weight) / float64(weights)
			require.InEpsilon(t, want, float64(sent[i]), 0.01, "weights %v, sizes %v, sent %v", sources, sizes, sent)
		}
	})
}

// TestRotaModel compares with a model while sources come, leave and have
// nothing to send: whoever waits is served once in a while, nobody twice, and
// nobody who does not wait; while somebody waits, somebody has the turn.
func TestRotaModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r rota
		sources := make([]share, 5)
		waiting := map[*share]bool{}
		for i := range sources {
			sources[i].weight = rapid.Int64Range(1, MaxWeight).Draw(t, "weight")
		}
		var holder *share
		pass := func() {
			holder = r.next()
			require.Equal(t, len(waiting) > 0, holder != nil, "work conserving")
			if holder != nil {
				require.True(t, waiting[holder])
				require.Positive(t, holder.credit)
				require.LessOrEqual(t, holder.credit, 2*holder.round())
				delete(waiting, holder)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				s := &sources[rapid.IntRange(0, 4).Draw(t, "source")]
				if s == holder || waiting[s] {
					t.Skip("not free")
				}
				r.join(s)
				waiting[s] = true
				if holder == nil {
					pass()
				}
			},
			"quit": func(t *rapid.T) {
				s := &sources[rapid.IntRange(0, 4).Draw(t, "source")]
				require.Equal(t, waiting[s], r.quit(s))
				delete(waiting, s)
			},
			"send": func(t *rapid.T) {
				if holder == nil {
					t.Skip("nobody")
				}
				holder.credit -= rapid.Int64Range(14, quantum).Draw(t, "frame")
				if r.over(holder) {
					holder.end(true)
					pass()
				}
			},
			"leave": func(t *rapid.T) {
				if holder == nil {
					t.Skip("nobody")
				}
				holder.end(false)
				require.LessOrEqual(t, holder.credit, int64(0), "nothing is saved up")
				pass()
			},
			"": func(t *rapid.T) { require.Len(t, r.waiting, len(waiting)) },
		})
	})
}

// TestGateDeadline: who waits in vain is not given the turn later.
func TestGateDeadline(t *testing.T) {
	var g gate
	b := newBench(t)
	one, two := newShare(&b.workers[0].beats), newShare(&b.workers[0].beats)
	timer := time.NewTimer(time.Hour)
	require.True(t, g.enter(&one, time.Now().Add(time.Hour), timer))
	require.False(t, g.enter(&two, time.Now().Add(time.Millisecond), timer))
	g.leave(&one, true)
	require.False(t, g.taken)
	require.True(t, g.enter(&two, time.Time{}, nil))
	g.leave(&two, false)
	require.Zero(t, two.credit)
}
