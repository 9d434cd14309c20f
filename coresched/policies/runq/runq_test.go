package runq

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	cs "junction/coresched"
)

func TestLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, want := NewLists(3), [3][]cs.Task{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			task := cs.Task(rapid.IntRange(1, 9).Draw(t, "task"))
			q := rapid.IntRange(0, 2).Draw(t, "queue")
			l.Remove(task)
			for i := range want {
				want[i] = slices.DeleteFunc(want[i], func(u cs.Task) bool { return u == task })
			}
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				l.PushBack(q, task)
				want[q] = append(want[q], task)
			case 1:
				l.PushFront(q, task)
				want[q] = slices.Insert(want[q], 0, task)
			}
			for i := range want {
				var got []cs.Task
				for u := l.First(i); u != cs.NoTask; u = l.Next(u) {
					require.True(t, l.Has(u))
					got = append(got, u)
				}
				require.Equal(t, len(want[i]), l.Len(i))
				require.True(t, slices.Equal(want[i], got), "%v %v", want[i], got)
			}
		}
	})
}

func TestHeap(t *testing.T) {
	type entry struct {
		task cs.Task
		key  int64
	}
	rapid.Check(t, func(t *rapid.T) {
		h, want := &Heap{}, []entry{}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			task := cs.Task(rapid.IntRange(1, 20).Draw(t, "task"))
			h.Remove(task)
			want = slices.DeleteFunc(want, func(e entry) bool { return e.task == task })
			if rapid.Bool().Draw(t, "push") {
				key := rapid.Int64Range(-3, 3).Draw(t, "key")
				h.Push(task, key)
				want = append(want, entry{task, key})
				slices.SortStableFunc(want, func(a, b entry) int { return int(a.key - b.key) })
			}
			require.Equal(t, len(want), h.Len())
			first, key := h.First()
			if len(want) == 0 {
				require.Equal(t, cs.NoTask, first)
			} else {
				require.Equal(t, want[0], entry{first, key})
			}
		}
	})
}
