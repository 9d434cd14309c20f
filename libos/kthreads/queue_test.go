package kthreads

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// world is the threads that a queue acts on, by name, in one of thread's states.
type world struct {
	state map[string]int
	log   []string
}

func (w *world) grant(t string) {
	w.state[t] = running
	w.log = append(w.log, "grant "+t)
}

func (w *world) reclaim(t string) bool {
	if w.state[t] != asleep {
		return false
	}
	w.state[t] = none
	w.log = append(w.log, "reclaim "+t)
	return true
}

func (w *world) yield(t string, interrupt bool) bool {
	if w.state[t] != running {
		return false
	}
	w.state[t] = yielding
	what := "mark "
	if interrupt {
		what = "interrupt "
	}
	w.log = append(w.log, what+t)
	return true
}

// step is one event of a transcript, and what the queue does.
type step struct{ event, does string }

// play plays "TIME EVENT [THREAD|NUMBER]", time in microseconds.
func play(t *testing.T, tokens int, quantum time.Duration, steps []step) *queue[string] {
	w := &world{state: make(map[string]int)}
	q := &queue[string]{tokens: tokens, quantum: quantum, do: w}
	for _, s := range steps {
		w.log = nil
		var us, n int
		var event, who string
		_, err := fmt.Sscanf(s.event, "%d %s %s", &us, &event, &who)
		require.NoError(t, err)
		now := time.Duration(us) * time.Microsecond
		switch event {
		case "enters":
			if q.acquire(who, now) {
				w.log = append(w.log, "go")
				w.state[who] = running
			}
		case "starts":
			q.start(who, now)
		case "sleeps":
			w.state[who] = asleep
		case "leaves":
			w.state[who] = none
			q.release(who)
		case "cancels":
			w.log = append(w.log, fmt.Sprint(q.cancel(who)))
		case "tick":
			q.press(now)
		case "tokens":
			fmt.Sscan(who, &n)
			q.setTokens(n, now)
		default:
			t.Fatal(s.event)
		}
		if at, ok := q.due(); ok {
			w.log = append(w.log, fmt.Sprint("due ", at.Microseconds()))
		}
		require.Equal(t, s.does, strings.Join(w.log, ", "), s.event)
	}
	return q
}

func TestQueueTranscripts(t *testing.T) {
	for name, steps := range map[string][]step{
		"nobody waits: nothing is ever due": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"900 tick -", ""},
		},
		"slices in turn": {
			{"0 enters a", "go"}, {"0 enters b", "go"},
			{"10 enters c", "due 100"}, {"20 enters d", "due 100"},
			{"100 tick -", "interrupt a, interrupt b"},
			{"105 leaves a", "grant c"}, {"106 leaves b", "grant d"},
			{"107 enters a", ""}, // c and d have not begun: no slice runs
			{"150 starts c", "due 250"}, {"160 starts d", "due 250"},
			{"161 enters b", "due 250"},
			{"250 tick -", "interrupt c, due 260"}, {"260 tick -", "interrupt d"},
			{"270 leaves d", "grant a"}, {"271 leaves c", "grant b"},
		},
		"who has had it long yields at once": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"5000 enters c", "interrupt a"}, {"5001 leaves a", "grant c"},
		},
		"a sleeper's token is taken first": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"1 sleeps b", ""}, {"2 enters c", "reclaim b, go"},
		},
		"a slice ends in sleep": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"2 enters c", "due 100"},
			{"90 sleeps a", "due 100"}, {"100 tick -", "reclaim a, grant c"},
		},
		"an interrupted waiter leaves the queue": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"1 enters c", "due 100"}, {"2 enters d", "due 100"},
			{"3 cancels c", "true, due 100"}, {"4 leaves b", "grant d"}, {"5 cancels d", "false"},
		},
		"fewer tokens": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"1 sleeps a", ""}, {"2 tokens 1", "reclaim a"},
			{"3 enters a", "due 100"}, {"100 tick -", "interrupt b"}, {"101 leaves b", "grant a"},
		},
		"fewer tokens than execute": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"1 tokens 1", "interrupt a"},
			{"2 enters c", "due 100"}, {"3 leaves a", "due 100"}, {"100 tick -", "interrupt b"}, {"101 leaves b", "grant c"},
		},
		"no tokens: sleepers lose theirs, who comes waits": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"1 sleeps a", ""}, {"2 tokens 0", "reclaim a, interrupt b"},
			{"3 leaves b", ""}, {"4 enters b", ""}, {"9 tick -", ""}, {"10 tokens 1", "grant b"}, {"11 starts b", ""},
		},
		"more tokens": {
			{"0 enters a", "go"}, {"0 enters b", "go"}, {"1 enters c", "due 100"}, {"1 enters d", "due 100"},
			{"2 tokens 3", "grant c, due 100"}, {"3 tokens 9", "grant d"},
		},
	} {
		t.Run(name, func(t *testing.T) { play(t, 2, 100*time.Microsecond, steps) })
	}
}

// TestQueueWithoutQuantum: holders are not interrupted, but go when they leave.
func TestQueueWithoutQuantum(t *testing.T) {
	q := play(t, 1, 0, []step{
		{"0 enters a", "go"}, {"1 enters b", "mark a"}, {"9000 tick -", ""}, {"9001 leaves a", "grant b"},
		{"9003 enters a", ""}, {"9004 starts b", ""}, {"9005 sleeps b", ""}, {"9006 tick -", "reclaim b, grant a"},
	})
	require.Equal(t, Stats{Waits: 2, Yields: 1}, q.stats)
}

// waiting is who waits, in order.
func waiting(q *queue[string]) (all []string) {
	for _, w := range q.waiters {
		all = append(all, w.thread)
	}
	return all
}

// TestQueueProperties: whatever threads do, no more execute than there are
// tokens once those in excess have left; no token is lost; nobody waits while a
// token is free or its holder sleeps; waiters are served in order.
func TestQueueProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const quantum = 100
		w := &world{state: make(map[string]int)}
		q := &queue[string]{tokens: rapid.IntRange(1, 4).Draw(t, "tokens"), quantum: quantum, do: w}
		names := []string{"a", "b", "c", "d", "e", "f", "g"}
		now, shrunk := time.Duration(0), false
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 80).Draw(t, "pause"))
			who := rapid.SampledFrom(names).Draw(t, "who")
			before := waiting(q)
			w.log = nil
			waits := slices.Contains(before, who)
			switch state := w.state[who]; {
			case rapid.IntRange(0, 19).Draw(t, "rare") == 0:
				n := rapid.IntRange(0, 4).Draw(t, "n")
				shrunk = shrunk || n < q.tokens
				q.setTokens(n, now)
			case waits && rapid.Bool().Draw(t, "cancel"):
				if !q.cancel(who) {
					t.Fatal("a waiter could not be cancelled")
				}
				before = slices.DeleteFunc(before, func(s string) bool { return s == who })
			case waits:
				q.press(now)
			case state == none:
				if q.acquire(who, now) {
					w.state[who] = running
				} else {
					before = append(before, who)
				}
			case state == yielding:
				w.state[who] = none
				q.release(who)
			case state == running:
				q.start(who, now)
				if rapid.Bool().Draw(t, "sleep") {
					w.state[who] = asleep
				}
				if w.state[who] == asleep && q.contended() {
					w.state[who] = none
					q.release(who)
				}
			default:
				w.state[who] = running
			}
			var grants []string
			for _, l := range w.log {
				if s, ok := strings.CutPrefix(l, "grant "); ok {
					grants = append(grants, s)
				}
			}
			if !slices.Equal(before, append(grants, waiting(q)...)) {
				t.Fatalf("%v waited, %v were granted, %v wait", before, grants, q.waiters)
			}
			held := 0
			for _, s := range w.state {
				if s != none {
					held++
				}
			}
			if held != len(q.holders) || len(q.holders) > q.tokens && !shrunk {
				t.Fatalf("%d threads have tokens, of %d: %v", held, q.tokens, q.holders)
			}
			if len(q.waiters) > 0 && len(q.holders) < q.tokens {
				t.Fatal("somebody waits while there is a token")
			}
		}
		// From here on nobody asks any more, and all obey: every waiter gets its turn.
		q.setTokens(max(1, q.tokens), now)
		for turns := 0; len(q.waiters) > 0; turns++ {
			if turns > 100 {
				t.Fatalf("%v wait for ever", q.waiters)
			}
			for _, h := range slices.Clone(q.holders) {
				q.start(h.thread, now)
				if w.state[h.thread] == yielding {
					w.state[h.thread] = none
					q.release(h.thread)
				}
			}
			now += quantum
			q.press(now)
		}
	})
}
