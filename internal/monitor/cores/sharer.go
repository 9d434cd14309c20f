// Package cores is the instance's side of core scheduling: it has no more threads
// execute than the scheduler grants, and says how many could.
package cores

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"junction/coresched/instance"
)

// Observer is told by Threads, with their lock held.
type Observer interface {
	Waiting() // a thread waits
	Settled() // no more execute than the limit says
	Woken()   // after Park, one wants to
}

// Demand is what Threads want.
type Demand struct {
	Executing, Waiting int
	Longest            time.Duration // that one has waited
	Turns              uint64        // changes when one executed
	// Frames is for how long a frame may have waited for the network's goroutines.
	Frames time.Duration
	// CPU is the CPU time that the process has used so far; 0: not known.
	CPU time.Duration
}

// Threads are an instance's, of which a limited number executes at once.
type Threads interface {
	// SetLimit changes the number, and returns before they comply.
	SetLimit(n int)
	Demand() Demand
	// Park has the next that wants to execute be told of. It is false, and
	// nothing happens, if one executes.
	Park() bool
	// Observe has o told; nil: nobody. Nobody else is told when it returns.
	Observe(o Observer)
}

const (
	// look is how often the demand is looked at, while there is any.
	look = 4 * time.Millisecond
	// memory is for how many looks a demand is remembered at most, so that a core
	// is not given up for a moment.
	memory = 4
	// soon is after how short a rest who wants to execute again is the same.
	soon = memory * look
	// silence is for how long the scheduler may give no sign of life. It gives
	// one each tenth of a second.
	silence = 2 * time.Second
)

// Options are a Sharer's parameters.
type Options struct {
	// Kthreads is how many threads execute when nobody limits them.
	Kthreads int
	// Guaranteed is how many cores others have to leave as soon as they are wanted.
	Guaranteed int
	// Delay is for how long a frame may wait before one kthread more is wanted.
	Delay  time.Duration
	Logger *slog.Logger
}

// Sharer connects an instance's threads with the scheduler of cores. While none
// of them has anything to do it does nothing: the first that wants to execute
// may, and wakes it.
//
// Of one that executes within its grant and has nothing to do at the next look the
// scheduler does not hear, unless it is guaranteed a core that others have to leave:
// the kernel finds a core for it sooner than any policy.
type Sharer struct {
	Options
	threads Threads
	taker   *instance.Taker

	// complying: a grant is read and its limit set without another's in between.
	complying sync.Mutex

	seq  atomic.Uint32 // of the grant that is being complied with
	wake chan struct{} // holds a token when there is something to look at
	done chan struct{} // closed at the end

	// Taken with the threads' lock held; never call them with it.
	mu sync.Mutex
	// +checklocks:mu
	told int // kthreads wanted, as shown last
	// +checklocks:mu
	woken int // how often parking ended

	silent atomic.Bool // the scheduler gives no sign of life
	asked  atomic.Bool // what is wanted is to be looked at once more
	// Of the goroutine that looks:
	wish   wish
	rested time.Time // since when nothing was wanted, before that is
	beat   uint64
	beatAt time.Time
	cpu    time.Duration // used
	cpuAt  time.Time
}

// Start begins. The taker is the Sharer's, which ends by itself with the scheduler.
func Start(threads Threads, taker *instance.Taker, o Options) *Sharer {
	s := &Sharer{Options: o, threads: threads, taker: taker, wake: make(chan struct{}, 1), done: make(chan struct{})}
	threads.Observe((*observer)(s))
	go s.run()
	return s
}

// Stop leaves the scheduler, as its end does: nobody limits the threads any more
// when it returns.
func (s *Sharer) Stop() {
	s.taker.Silence()
	<-s.done
}

// run complies with grants until there will be none.
func (s *Sharer) run() {
	defer close(s.done)
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(stop) })
	s.comply()
	for s.taker.Wait() == nil {
		s.comply()
	}
	close(stop)
	watching.Wait()
	s.threads.Observe(nil)
	s.threads.SetLimit(s.Kthreads)
	if err := s.taker.Close(); err != nil {
		s.Logger.Warn("close the page of kthreads", "error", err)
	}
	s.Logger.Info("cores are not scheduled any more")
}

// comply does what the present grant says.
func (s *Sharer) comply() {
	s.complying.Lock()
	defer s.complying.Unlock()
	g := s.taker.Grant()
	if s.seq.Swap(g.Seq) == g.Seq {
		s.asked.Store(true)
	}
	if !s.silent.Load() {
		s.threads.SetLimit(min(g.Kthreads, s.Kthreads))
	}
	s.rouse()
}

// rouse has the demand looked at.
func (s *Sharer) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// watch looks at the demand while there is any.
func (s *Sharer) watch(stop chan struct{}) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-s.wake:
		case <-stop:
			return
		}
		s.beatAt = time.Now()
		s.wish.begin(s.beatAt.Sub(s.rested) < soon)
		tick.Reset(look)
		for wanted := true; wanted; {
			select {
			case <-tick.C:
				wanted = s.look(true)
			case <-s.wake:
				wanted = s.look(false)
			case <-stop:
				return
			}
		}
		s.rested = time.Now()
	}
}

// look shows what the threads want now, and tells whether that is to be looked
// at again.
func (s *Sharer) look(due bool) bool {
	s.heedSilence()
	d := s.threads.Demand()
	if d.Frames > s.Delay { // the network's goroutines have too few cores
		d.Waiting++
		d.Longest = max(d.Longest, d.Frames)
	}
	if s.usesCores(d.CPU) && d.Executing+d.Waiting == 0 {
		d.Executing = 1 // the network's goroutines
	}
	if s.asked.Swap(false) {
		due = false // what it uses shows at the next
	}
	want, over := s.wish.heed(&d, s.Kthreads, due)
	if over {
		return !s.park()
	}
	if want == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.show(instance.Demand{Want: want, Waiting: d.Waiting, Longest: d.Longest})
	return true
}

// usesCores tells whether the process has used a quarter of a core or more since the
// last look, if that was lately. Who uses cores says that it wants one, also while no
// thread executes: the scheduler compares (package excess), and asks when it wonders.
func (s *Sharer) usesCores(cpu time.Duration) bool {
	now := time.Now()
	passed, used := now.Sub(s.cpuAt), cpu-s.cpu
	s.cpu, s.cpuAt = cpu, now
	return passed < soon && used > passed/4
}

// park says that nothing is wanted, unless that changes just now.
func (s *Sharer) park() bool {
	s.mu.Lock()
	woken := s.woken
	s.mu.Unlock()
	if !s.threads.Park() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.woken != woken {
		return false
	}
	s.show(instance.Demand{})
	return true
}

// show rings if what is wanted changes.
// +checklocks:s.mu
func (s *Sharer) show(d instance.Demand) {
	ring := d.Want != s.told
	s.told = d.Want
	s.taker.Show(d, ring)
}

// heedSilence lets all threads execute while a scheduler that has granted less
// stands still.
func (s *Sharer) heedSilence() {
	now, beat := time.Now(), s.taker.Beat()
	switch {
	case beat != s.beat:
		s.beat, s.beatAt = beat, now
		if s.silent.Swap(false) {
			s.Logger.Info("the scheduler of cores lives again")
			s.comply()
		}
	case now.Sub(s.beatAt) > silence && s.taker.Grant().Kthreads < s.Kthreads:
		s.ignore()
	}
}

// ignore lets all threads execute until the scheduler lives again.
func (s *Sharer) ignore() {
	s.complying.Lock()
	defer s.complying.Unlock()
	if !s.silent.Swap(true) {
		s.Logger.Warn("the scheduler of cores gives no sign of life; its grant is ignored until it does")
		s.threads.SetLimit(s.Kthreads)
	}
}

// observer is the part of a Sharer that the threads tell.
type observer Sharer

// Waiting implements Observer. One kthread more than were granted is wanted; how
// many altogether shows the next look.
func (o *observer) Waiting() {
	s := (*Sharer)(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := min(s.taker.Grant().Kthreads+1, s.Kthreads); want > s.told {
		s.show(instance.Demand{Want: want, Waiting: 1})
	}
}

// Settled implements Observer.
func (o *observer) Settled() { o.taker.Settle(o.seq.Load()) }

// Woken implements Observer.
func (o *observer) Woken() {
	s := (*Sharer)(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.woken++
	if s.Guaranteed > 0 || s.taker.Grant().Kthreads == 0 {
		s.show(instance.Demand{Want: 1})
	}
	s.rouse()
}
