package live

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

var startMonotonic, startTime = readClock()

func readClock() (cs.Time, time.Time) {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail with this clock
	return cs.Time(ts.Nano()), time.Now()
}

// clock is CLOCK_MONOTONIC, as policies' processes and BPF programs have it.
func clock() cs.Time { return startMonotonic + time.Since(startTime) }

// heedEvents tells the machine what threads do.
func (a *Actuator) heedEvents() {
	var r ringbuf.Record
	for {
		e, err := a.watch.next(&r)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, ringbuf.ErrFlushed) {
			return
		}
		if err != nil {
			a.opts.Logger.Warn("events of threads", "error", err)
			continue
		}
		a.mu.Lock()
		a.heed(&e)
		a.carryOut()
		a.mu.Unlock()
	}
}

// heed takes note of one event. One that does not fit what is known is old news:
// it was on its way while the thread's state was read.
// +checklocks:a.mu
func (a *Actuator) heed(e *event) {
	t := a.threads[e.tid]
	if t == nil {
		switch o, ok := a.formerly(e.tid); {
		case ok && e.kind == forked:
			a.adoptOrphan(e.other, o.child())
		case ok && e.kind == renamed:
			a.adoptOrphan(e.other, o)
		}
		return
	}
	n, now := t.enclave, clock()
	switch e.kind {
	case slept, woke:
		a.wakes(t, e.kind == woke)
	case ended:
		_ = n.e.Die(now, t.task)
		a.forget(e.tid)
	case forked:
		a.inherit(t, e.other, t.original.child())
	case renamed: // the first thread of its process had the number, and has ended
		a.inherit(t, e.other, t.original)
		_ = n.e.Die(now, t.task)
		a.forget(e.tid)
	}
	n.wake()
}

// inherit takes the new thread of one that is in an enclave. It began with what
// its maker has now, and is to get back what its maker had, or what that would
// have made of it.
// +checklocks:a.mu
func (a *Actuator) inherit(parent *member, tid int, o original) {
	if a.threads[tid] != nil {
		return
	}
	s, err := readStat(tid)
	if err != nil {
		s = stat{comm: parent.comm} // it has ended already; that will be told too
	}
	if err := a.enter(parent.enclave, tid, &s, o); err != nil {
		a.opts.Logger.Warn("new thread cannot be scheduled", "thread", tid, "error", err)
		a.adoptOrphan(tid, o)
	} else if !parent.enclave.e.Attached() {
		a.restore(tid, &o) // its maker was released after it was made
	}
}

// adoptOrphan lets go of a thread whose maker had left its enclave by the time
// that we heard of it.
// +checklocks:a.mu
func (a *Actuator) adoptOrphan(tid int, o original) {
	a.watch.drop(tid)
	if err := a.dismiss(tid); err != nil {
		a.opts.Logger.Warn("thread stays on exclusive cores", "thread", tid, "error", err)
	}
	a.restore(tid, &o)
	a.former[tid] = o // it may have made others
}

// +checklocks:a.mu
func (a *Actuator) restore(tid int, o *original) {
	if err := o.restore(tid); err != nil {
		a.opts.Logger.Warn("thread cannot be restored", "thread", tid, "error", err)
	}
}

// Of the beats of the watchdog.
const (
	compareEvery = 10                     // beats
	tidyEvery    = 100                    // beats
	slowBeat     = 100 * time.Millisecond // while no thread is in an enclave
)

// watchdog finds policies that let threads wait or stand still, events that were
// lost, and what programs say of their threads, and tells the guard that all is
// well.
func (a *Actuator) watchdog() {
	tick := time.NewTicker(slowBeat)
	defer tick.Stop()
	var heeded *guard // its end was
	for n := 0; ; n++ {
		g, busy := a.now()
		ended := g.ended
		if g == heeded {
			ended = nil
		}
		tick.Reset(beatOf(busy))
		select {
		case <-a.done:
			return
		case <-ended:
			heeded = g
			a.opts.Logger.Error("the guard has ended; all policies are taken away")
			a.giveUp("the guard has ended")
			continue
		case <-a.stir: // there is a first thread
		case <-tick.C:
		}
		_ = g.tell(&note{}) // its end shows above
		a.beat(n)
	}
}

func beatOf(busy bool) time.Duration {
	if busy {
		return beatEvery
	}
	return slowBeat
}

// now returns the guard, and whether there are threads or instances to guard.
func (a *Actuator) now() (g *guard, busy bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.guard, len(a.threads)+len(a.instances.all)+a.keeping > 0
}

// beat does what is to be done at the n-th beat.
func (a *Actuator) beat(n int) {
	if n%tidyEvery == 0 {
		a.tidy()
	}
	if n%compareEvery == 0 {
		a.audit()
	}
	a.saveIfDue()
	a.lookForTables()
	for n, why := range a.check(n%compareEvery == 0) {
		a.opts.Logger.Warn("policy is taken away", "enclave", n.name, "reason", why)
		a.end(n, why)
	}
}

// end takes the policy of an enclave away at once, and ends it in its own time: a
// process that stands still takes long.
func (a *Actuator) end(n *enclave, why string) {
	a.mu.Lock()
	old := a.losePolicy(n, why)
	a.mu.Unlock()
	a.helpers.Go(old.end)
}

// giveUp takes all policies away: nobody would release the threads if the
// actuator ended now.
func (a *Actuator) giveUp(why string) {
	a.mu.Lock()
	a.changes = true // the guard has written the record
	all := slices.Collect(maps.Values(a.enclaves))
	a.mu.Unlock()
	for _, n := range all {
		a.end(n, why)
	}
}

// check returns the enclaves whose policy has to go, and why.
func (a *Actuator) check(compare bool) map[*enclave]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if lost := a.watch.losses(); lost != a.lost {
		a.lost = lost
		a.resync()
	}
	a.heedCores()
	a.carryOut()
	a.readHints()
	if compare {
		a.ageFormer()
		a.compare()
		a.showLife()
	}
	bad := map[*enclave]string{}
	for _, n := range a.enclaves {
		if n.driver == nil {
			continue
		}
		if task, stalled := n.e.Stalled(clock()); stalled {
			bad[n] = "a thread waited for longer than the runnable timeout: " + a.nameOf(task)
		} else if n.reading.check(time.Now(), n) {
			n.standstills++
			bad[n] = fmt.Sprintf("it stands still: slept or stopped for %v, used %v of CPU time, and read no message",
				n.reading.asleep.Round(time.Millisecond), n.reading.busy.Round(time.Millisecond))
		}
	}
	return bad
}

// formerly returns what a thread had that has left.
// +checklocks:a.mu
func (a *Actuator) formerly(tid int) (o original, ok bool) {
	if o, ok = a.former[tid]; !ok {
		o, ok = a.elder[tid]
	}
	return o, ok
}

// ageFormer strikes threads off that left long before any event that is still
// on its way.
// +checklocks:a.mu
func (a *Actuator) ageFormer() {
	if a.formerAge++; a.formerAge >= formerKept {
		a.formerAge = 0
		a.former, a.elder = map[int]original{}, a.former
	}
}

// resync reads how all threads stand, because events were lost.
// +checklocks:a.mu
func (a *Actuator) resync() {
	for tid, t := range a.threads {
		s, err := readStat(tid)
		switch {
		case err != nil || s.started != t.started || s.gone():
			_ = t.enclave.e.Die(clock(), t.task)
			a.forget(tid)
		default:
			a.wakes(t, s.canRun())
			a.watch.tell(tid, !s.canRun())
		}
		t.enclave.wake()
	}
	a.takeStrays()
	a.carryOut()
}
