package cores

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	cs "junction/coresched"
	"junction/coresched/instance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeThreads execute and wait as the test says.
type fakeThreads struct {
	mu       sync.Mutex
	limit    int
	setting  atomic.Bool // SetLimit is being called
	crossed  atomic.Bool // it was called twice at once
	takes    atomic.Int64
	want     Demand
	burning  bool
	parked   bool
	parks    int
	observer Observer
}

func (f *fakeThreads) SetLimit(n int) {
	if f.setting.Swap(true) {
		f.crossed.Store(true)
	}
	defer f.setting.Store(false)
	time.Sleep(time.Duration(f.takes.Load())) // for another to cross it
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = n
	if f.observer != nil {
		f.observer.Settled()
	}
}

func (f *fakeThreads) Demand() Demand {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.burning {
		f.want.CPU = time.Since(startTime) + 1
	}
	return f.want
}

var startTime = time.Now()

// burns has the process use a core, whatever its threads do.
func (f *fakeThreads) burns(is bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.burning = is
}

func (f *fakeThreads) Park() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parked = f.want.Executing+f.want.Waiting == 0
	if f.parked {
		f.parks++
	}
	return f.parked
}

func (f *fakeThreads) Observe(o Observer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observer = o
}

// framesWait has the oldest have waited so long.
func (f *fakeThreads) framesWait(age time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want.Frames = age
}

// wants has threads execute or wait.
func (f *fakeThreads) wants(executing, waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want.Executing, f.want.Waiting = executing, waiting
	f.want.Turns++
	if f.parked && executing > 0 {
		f.parked = false
		f.observer.Woken()
	}
	if waiting > 0 {
		f.observer.Waiting()
	}
}

func (f *fakeThreads) hasLimit(n int) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.limit == n
	}
}

const most = 4

func options(guaranteed int) Options {
	return Options{Kthreads: most, Guaranteed: guaranteed, Delay: time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
}

func begin(t *testing.T) (*fakeThreads, *instance.Giver, *Sharer) { return beginWith(t, 0) }

func beginWith(t *testing.T, guaranteed int) (*fakeThreads, *instance.Giver, *Sharer) {
	g, files, err := instance.NewGiver(1 << 20)
	require.NoError(t, err)
	taker, err := instance.NewTaker(files)
	require.NoError(t, err)
	f := &fakeThreads{limit: -1}
	s := Start(f, taker, options(guaranteed))
	t.Cleanup(func() {
		s.Stop()
		require.NoError(t, g.Close())
		require.Nil(t, f.observer)
		require.Equal(t, most, f.limit)
		require.False(t, f.crossed.Load(), "the limit of an older grant may be the last")
	})
	return f, g, s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, time.Millisecond, what)
}

// beating has the scheduler live while ok is asked: on a slow machine its grant would be
// ignored before it is seen to hold.
func beating(g *instance.Giver, ok func() bool) func() bool {
	return func() bool { g.Beat(); return ok() }
}

// heard waits until the instance has rung and wants so many.
func heard(t *testing.T, g *instance.Giver, want int) {
	t.Helper()
	for g.Demand(most).Want != want {
		require.NoError(t, g.Wait())
	}
}

// TestGrants: demand is rung for, grants are complied with and told of.
func TestGrants(t *testing.T) {
	f, g, _ := begin(t)
	eventually(t, "no limit yet", f.hasLimit(most))
	f.wants(1, 0)
	heard(t, g, 1)
	g.Grant(1, new(cs.CPUSet), false)
	eventually(t, "one", beating(g, f.hasLimit(1)))
	eventually(t, "complied", g.Settled)
	f.wants(1, 1)
	heard(t, g, 2)
	f.wants(1, 2)
	heard(t, g, 3)
	f.wants(1, 20)
	heard(t, g, most)
	g.Grant(9, new(cs.CPUSet), false)
	eventually(t, "no more than there are", f.hasLimit(most))
	f.wants(1, 0)
	heard(t, g, 1)
}

// TestFramesWait: frames that wait for longer than the delay want one kthread more, as
// a thread that waits does.
func TestFramesWait(t *testing.T) {
	f, g, _ := begin(t)
	f.wants(1, 0)
	heard(t, g, 1)
	f.framesWait(time.Second)
	heard(t, g, 2)
	eventually(t, "told for how long", func() bool { return g.Demand(most).Longest >= time.Second })
	f.framesWait(time.Microsecond) // less than the delay
	heard(t, g, 1)
	require.Zero(t, g.Demand(most).Longest)
}

// TestUsesBeside: one whose network uses cores, though no thread executes, says so when
// it is asked.
func TestUsesBeside(t *testing.T) {
	f, g, _ := begin(t)
	f.wants(1, 0)
	heard(t, g, 1)
	f.wants(0, 0)
	heard(t, g, 0)
	for range 3 {
		f.burns(true)
		g.Ask()
		heard(t, g, 1)
		f.burns(false)
		heard(t, g, 0)
		g.Ask()
		time.Sleep(5 * look)
		require.Zero(t, g.Demand(most).Want)
	}
}

// TestParking: who has nothing to do says so once and is then quiet, until the
// first wants to execute.
func TestParking(t *testing.T) {
	f, g, _ := begin(t)
	for range 3 {
		f.wants(1, 0)
		heard(t, g, 1)
		f.wants(0, 0)
		heard(t, g, 0)
		f.mu.Lock()
		require.True(t, f.parked)
		parks := f.parks
		f.mu.Unlock()
		time.Sleep(5 * look) // would look, were it not parked
		f.mu.Lock()
		require.Equal(t, parks, f.parks)
		f.mu.Unlock()
	}
}

// moment has one execute for a moment in which nobody looks, with what see finds in it.
func (f *fakeThreads) moment(see func()) (parks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.want.Turns++
	f.parked = false
	f.observer.Woken()
	see()
	return f.parks
}

// TestMoment: of one who executes for a moment the scheduler hears only if cores are
// guaranteed, or none is granted.
func TestMoment(t *testing.T) {
	for name, c := range map[string]struct{ guaranteed, granted, heard int }{
		"within its grant": {0, 1, 0},
		"guaranteed":       {1, 1, 1},
		"nothing granted":  {0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f, g, _ := beginWith(t, c.guaranteed)
			g.Grant(c.granted, new(cs.CPUSet), false)
			eventually(t, "its limit", beating(g, f.hasLimit(c.granted)))
			rests := func(parks int) func() bool {
				return func() bool {
					f.mu.Lock()
					defer f.mu.Unlock()
					return f.parked && f.parks > parks
				}
			}
			eventually(t, "nothing to do", rests(0))
			for range 5 {
				before := g.Demand(most).Want
				require.Zero(t, before)
				parks := f.moment(func() { require.Equal(t, c.heard, g.Demand(most).Want) })
				eventually(t, "nothing to do again", rests(parks))
				eventually(t, "nothing wanted", func() bool { return g.Demand(most).Want == 0 })
			}
		})
	}
}

// TestSchedulerStandsStill: a grant of one that gives no sign of life is ignored,
// and heeded again when it does.
func TestSchedulerStandsStill(t *testing.T) {
	f, g, _ := begin(t)
	f.wants(2, 0)
	g.Grant(1, new(cs.CPUSet), false)
	eventually(t, "one", beating(g, f.hasLimit(1)))
	eventually(t, "no limit", f.hasLimit(most))
	eventually(t, "one again", beating(g, f.hasLimit(1)))
}

// TestGrantsOfTheAwakened: a grant that comes just when a scheduler that stood still
// gives a sign of life is the one that holds.
func TestGrantsOfTheAwakened(t *testing.T) {
	f, g, s := begin(t)
	f.wants(2, 0)
	f.takes.Store(int64(time.Millisecond))
	for n := range 30 {
		s.ignore()
		g.Beat()
		for s.silent.Load() {
			runtime.Gosched()
		}
		g.Grant(1+n%2, new(cs.CPUSet), false)
	}
	g.Grant(3, new(cs.CPUSet), false)
	eventually(t, "the last", beating(g, f.hasLimit(3)))
}

// TestSchedulerGone: nobody limits the threads any more.
func TestSchedulerGone(t *testing.T) {
	g, files, err := instance.NewGiver(most)
	require.NoError(t, err)
	taker, err := instance.NewTaker(files)
	require.NoError(t, err)
	f := &fakeThreads{}
	s := Start(f, taker, options(0))
	g.Grant(1, new(cs.CPUSet), false)
	eventually(t, "one", f.hasLimit(1))
	require.NoError(t, g.Close())
	eventually(t, "no limit", f.hasLimit(most))
	s.Stop()
}
