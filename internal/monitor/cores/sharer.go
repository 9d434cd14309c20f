// Package cores is the instance's side of core scheduling: it has no more threads
// execute than the scheduler grants, and says how many could.
package cores

import (
	"log/slog"
	"slices"
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
	// memory is for how many looks a demand is remembered, so that a core is not
	// given up for a moment.
	memory = 4
	// silence is for how long the scheduler may give no sign of life. It gives
	// one each tenth of a second.
	silence = 2 * time.Second
)

// Sharer connects an instance's threads with the scheduler of cores. While none
// of them has anything to do it does nothing: the first that wants to execute
// may, and wakes it.
type Sharer struct {
	threads Threads
	taker   *instance.Taker
	most    int
	delay   time.Duration
	logger  *slog.Logger

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
	// Of the goroutine that looks:
	turns  uint64
	recent [memory]int // demand, as of the last looks
	at     int
	beat   uint64
	beatAt time.Time
}

// Start begins. most is how many threads execute when nobody limits them, delay
// for how long a frame may wait before one kthread more is wanted. The taker is the Sharer's, which ends by itself with the scheduler.
func Start(threads Threads, taker *instance.Taker, most int, delay time.Duration, logger *slog.Logger) *Sharer {
	s := &Sharer{
		threads: threads, taker: taker, most: most, delay: delay, logger: logger,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
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
	s.threads.SetLimit(s.most)
	if err := s.taker.Close(); err != nil {
		s.logger.Warn("close the page of kthreads", "error", err)
	}
	s.logger.Info("cores are not scheduled any more")
}

// comply does what the present grant says.
func (s *Sharer) comply() {
	s.complying.Lock()
	defer s.complying.Unlock()
	g := s.taker.Grant()
	s.seq.Store(g.Seq)
	if !s.silent.Load() {
		s.threads.SetLimit(min(g.Kthreads, s.most))
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
		tick.Reset(look)
		for s.look() {
			select {
			case <-tick.C:
			case <-s.wake:
			case <-stop:
				return
			}
		}
	}
}

// look shows what the threads want now, and tells whether that is to be looked
// at again.
func (s *Sharer) look() bool {
	s.heedSilence()
	d := s.threads.Demand()
	if d.Frames > s.delay { // the network's goroutines have too few cores
		d.Waiting++
		d.Longest = max(d.Longest, d.Frames)
	}
	now := d.Executing + d.Waiting
	if now == 0 && d.Turns != s.turns {
		now = 1 // one has executed meanwhile
	}
	s.turns = d.Turns
	s.at = (s.at + 1) % memory
	s.recent[s.at] = min(now, s.most)
	want := slices.Max(s.recent[:])
	if want == 0 {
		return !s.park()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.show(instance.Demand{Want: want, Waiting: d.Waiting, Longest: d.Longest})
	return true
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
			s.logger.Info("the scheduler of cores lives again")
			s.comply()
		}
	case now.Sub(s.beatAt) > silence && s.taker.Grant().Kthreads < s.most:
		s.ignore()
	}
}

// ignore lets all threads execute until the scheduler lives again.
func (s *Sharer) ignore() {
	s.complying.Lock()
	defer s.complying.Unlock()
	if !s.silent.Swap(true) {
		s.logger.Warn("the scheduler of cores gives no sign of life; its grant is ignored until it does")
		s.threads.SetLimit(s.most)
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
	if want := min(s.taker.Grant().Kthreads+1, s.most); want > s.told {
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
	s.show(instance.Demand{Want: 1})
	s.rouse()
}
