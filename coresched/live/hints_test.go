package live

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/hints"
)

// giveHints runs two threads that compute without end, prints their numbers, and
// gives the hints that it is told: which thread, its work class (1: urgent, 2: may
// wait), and 1 if it has nothing to do.
func giveHints() error {
	w, err := hints.New(hints.Options{})
	if err != nil {
		return err
	}
	_ = w.SetClass(1, hints.Class{QoS: hints.Latency})
	_ = w.SetClass(2, hints.Class{QoS: hints.Batch, Period: 1_000_000})
	items, all := make(chan hints.Item), []hints.Item{}
	for range 2 {
		go func() {
			runtime.LockOSThread()
			it, err := w.Item(unix.Gettid())
			fatal(err)
			fmt.Println(unix.Gettid())
			items <- it
			for x := 1; ; x *= 3 {
				runtime.KeepAlive(x)
			}
		}()
		all = append(all, <-items)
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var i, class, idle int
		if _, err := fmt.Sscan(in.Text(), &i, &class, &idle); err != nil {
			return err
		}
		all[i].Set(hints.Hint{Class: uint32(class), Idle: idle == 1})
		fmt.Println("said")
	}
	return nil
}

// hinter is the process of giveHints.
type hinter struct {
	tids []int
	say  func(i, class, idle int)
}

func startHinter(t *testing.T) (h hinter) {
	_, in, out := converse(t, nil, role("hinter")...)
	for range 2 {
		require.True(t, out.Scan())
		var tid int
		_, err := fmt.Sscan(out.Text(), &tid)
		require.NoError(t, err)
		h.tids = append(h.tids, tid)
	}
	h.say = func(i, class, idle int) {
		_, err := fmt.Fprintln(in, i, class, idle)
		require.NoError(t, err)
		require.True(t, out.Scan())
		require.Equal(t, "said", out.Text())
	}
	return h
}

// What a program says of its threads reaches the policy while they run: who is
// urgent has the core, unless it has nothing to do.
func TestHints(t *testing.T) {
	a, h := newActuator(t), startHinter(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "shinjuku", []string{"slice=1ms"})
	require.NoError(t, err)
	require.NoError(t, a.Push("e", h.tids))
	stands := func(urgent, other string) func() bool {
		return func() bool {
			all := map[int]string{}
			for _, s := range a.Threads() {
				all[s.TID] = s.State
			}
			return all[h.tids[0]] == urgent && all[h.tids[1]] == other
		}
	}
	h.say(0, 1, 0)
	h.say(1, 2, 0)
	eventually(t, "its table is found", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		m := a.threads[h.tids[1]].hints()
		return m.Class == cs.BestEffort && m.Deadline > 0 // a period after it woke
	})
	eventually(t, "the urgent one has the core", stands("running", "waiting"))
	for range 3 {
		h.say(0, 1, 1)
		eventually(t, "it has nothing to do, the other one has the core", stands("blocked", "running"))
		h.say(0, 1, 0)
		eventually(t, "it has again", stands("running", "waiting"))
	}
	h.say(0, 2, 0)
	h.say(1, 1, 0)
	eventually(t, "the other one is urgent", stands("waiting", "running"))
	require.Zero(t, enclaveOf(t, a, "e").Crashes)
}
