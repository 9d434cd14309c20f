package ipc

import (
	"fmt"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"
)

// The doorbell protocol is checked by trying all interleavings of its steps, a
// step being one access to shared memory or to a bell. Two coroutines run the
// producer's and the consumer's code; a third one wakes them at any time as Wake
// does. A schedule is replayed from the start to reach each state.
//
// That steps are taken in program order is what sequential consistency promises.
// The mutants at the end take two of them in the other order, as a CPU without
// the barrier would, and must be caught.

// mutation is a mistake to build in.
type mutation int

const (
	correct mutation = iota
	consumerLooksFirst
	producerLooksFirst
	releaserLooksFirst
	roomLooksFirst
	clearsLate
	mutations
)

// pause is where a coroutine stands: the name of its next step, and what it
// waits for there, if anything.
type pause struct {
	at    string
	ready func() bool
}

// world is all state: shared memory, private state, bells.
type world struct {
	l              lane
	p              producer
	c              consumer
	pSleep, cSleep sleeper
	toC, toP       ringer
	bellC, bellP   int
	localC, localP bool
	frames         int
	got            int
	mutation       mutation

	// Local variables of produce and consume.
	pDue, cDue, pWait, cWait bool
}

func newWorld(frames int, m mutation) *world {
	l := ordinaryLane(1, 64, ^uint32(0)) // one buffer, index about to wrap
	return &world{
		l: l, p: attachProducer(l), c: attachConsumer(l),
		pSleep: attachSleeper(l.txSleep), cSleep: attachSleeper(l.rxSleep),
		toC: ringer{word: l.rxSleep}, toP: ringer{word: l.txSleep},
		frames: frames, mutation: m,
	}
}

// key identifies the state, given where the coroutines stand.
func (w *world) key(at [3]string) string {
	return fmt.Sprint(at, w.l.producer.Load(), w.l.consumer.Load(), w.l.rxSleep.Load(), w.l.txSleep.Load(),
		w.p.own, w.p.shown, w.p.seen, w.p.need, w.c.own, w.c.shown, w.c.seen,
		w.pSleep.n, w.cSleep.n, w.toC.rang, w.toP.rang, w.bellC, w.bellP, w.localC, w.localP, w.got,
		w.pDue, w.cDue, w.pWait, w.cWait)
}

type step func(at string, ready func() bool)

// swap runs two steps, in the other order if the mutation is m.
func (w *world) swap(m mutation, a, b func()) {
	if w.mutation == m {
		a, b = b, a
	}
	a()
	b()
}

func (w *world) produce(step step) {
	hdr, frame := [VnetHdrLen]byte{}, make([]byte, MinFrame)
	for i := range w.frames {
		for {
			step("put", nil)
			frame[0] = byte(i)
			ok, bad := w.p.put(&hdr, [][]byte{frame}, VnetHdrLen+MinFrame)
			if bad != nil {
				panic(bad)
			}
			if ok {
				break
			}
			w.sleepForRoom(step)
		}
		w.swap(producerLooksFirst,
			func() { step("publish", nil); w.p.publish() },
			func() { step("due", nil); w.pDue = w.toC.due() })
		if w.pDue {
			step("ring", nil)
			w.bellC++
		}
	}
}

func (w *world) sleepForRoom(step step) {
	w.swap(roomLooksFirst,
		func() { step("asleep", nil); w.pSleep.asleep() },
		func() { step("worth waiting", nil); w.pWait = w.p.worthWaiting() })
	if w.pWait {
		step("block", func() bool { return w.bellP > 0 || w.localP })
	}
	step("awake", nil)
	w.pSleep.awake()
	if w.pWait {
		step("clear", nil)
		w.bellP, w.localP = 0, false
	}
}

func (w *world) consume(step step) {
	for w.got < w.frames {
		step("look", nil)
		if bad := w.c.look(); bad != nil {
			panic(bad)
		}
		if w.c.known() == 0 {
			w.sleepForFrames(step)
			continue
		}
		for w.c.known() > 0 {
			f, bad := w.c.peek()
			if bad != nil || w.c.data[f.off+VnetHdrLen] != byte(w.got) {
				panic(fmt.Sprint("wrong frame ", w.got, bad))
			}
			w.c.advance(f)
			w.got++
		}
		w.swap(releaserLooksFirst,
			func() { step("release", nil); w.c.release() },
			func() { step("due", nil); w.cDue = w.toP.due() })
		if w.cDue {
			step("ring", nil)
			w.bellP++
		}
	}
}

func (w *world) sleepForFrames(step step) {
	w.swap(consumerLooksFirst,
		func() { step("asleep", nil); w.cSleep.asleep() },
		func() { step("idle", nil); w.cWait = w.c.idle() })
	if w.cWait && w.mutation == clearsLate {
		step("clear", nil)
		w.bellC = 0
	}
	if w.cWait {
		step("block", func() bool { return w.bellC > 0 || w.localC })
	}
	step("awake", nil)
	w.cSleep.awake()
	if w.cWait && w.mutation != clearsLate {
		step("clear", nil)
		w.bellC, w.localC = 0, false
	}
	w.localC = false
}

// disturb wakes each side once without need.
func (w *world) disturb(step step) {
	step("wake consumer", nil)
	w.localC = true
	step("wake producer", nil)
	w.localP = true
}

// replay runs a schedule, the numbers of the coroutines in the order of their
// steps, and returns the state after it and who can go on. over is set when all
// have finished.
func replay(schedule []byte, frames int, m mutation) (w *world, at [3]string, can []byte, over bool) {
	w = newWorld(frames, m)
	var next [3]func() (pause, bool)
	var now [3]pause
	var live [3]bool
	for i, code := range []func(step){w.produce, w.consume, w.disturb} {
		var stop func()
		next[i], stop = iter.Pull(func(yield func(pause) bool) {
			defer func() {
				if r := recover(); r != nil && r != (stopped{}) {
					panic(r)
				}
			}()
			code(func(at string, ready func() bool) {
				if !yield(pause{at, ready}) {
					panic(stopped{})
				}
			})
		})
		defer stop()
		now[i], live[i] = next[i]()
	}
	for _, i := range schedule {
		now[i], live[i] = next[i]()
	}
	over = true
	for i := range now {
		at[i] = now[i].at
		if live[i] && (now[i].ready == nil || now[i].ready()) {
			can = append(can, byte(i))
		}
		over = over && (!live[i] || i == 2)
	}
	return w, at, can, over
}

// stopped unwinds a coroutine that is not needed any more.
type stopped struct{}

// explore tries everything and returns the number of states, and a schedule
// after which somebody sleeps for ever, if there is one.
func explore(frames int, m mutation) (states int, stuck []byte) {
	seen := map[string]bool{}
	todo := [][]byte{nil}
	for len(todo) > 0 {
		schedule := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		w, at, can, over := replay(schedule, frames, m)
		if key := w.key(at); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		// A wake-up that has not come yet is none to rely on.
		if !over && (len(can) == 0 || len(can) == 1 && can[0] == 2) {
			return len(seen), append(schedule, 0xff)
		}
		for _, i := range can {
			todo = append(todo, append(append([]byte{}, schedule...), i))
		}
	}
	return len(seen), nil
}

// TestNoLostWakeup tries all interleavings with a ring of one buffer, where
// both sides sleep all the time.
func TestNoLostWakeup(t *testing.T) {
	frames := 3
	if testing.Short() {
		frames = 2
	}
	states, stuck := explore(frames, correct)
	require.Nil(t, stuck, "lost wake-up")
	require.Greater(t, states, 1000)
	t.Logf("%d states", states)
}

// TestExplorerFindsMistakes proves that TestNoLostWakeup can fail.
func TestExplorerFindsMistakes(t *testing.T) {
	for m := correct + 1; m < mutations; m++ {
		_, stuck := explore(3, m)
		require.NotNil(t, stuck, "mistake %d was not found", m)
	}
}
