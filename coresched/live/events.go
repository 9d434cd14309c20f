package live

import (
	"errors"
	"os"
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
	if o, ok := a.former[e.tid]; ok && t == nil && e.kind == forked {
		a.adoptOrphan(e.other, o)
	}
	if t == nil {
		return
	}
	n, now := t.enclave, clock()
	switch e.kind {
	case slept:
		_ = n.e.Block(now, t.task)
	case woke:
		_ = n.e.Wakeup(now, t.task)
	case ended:
		_ = n.e.Die(now, t.task)
		a.forget(e.tid)
	case forked:
		a.inherit(t, e.other)
	}
	n.wake()
}

// inherit takes the new thread of one that is in an enclave. It began with what
// its maker has now, and is to get back what its maker had.
// +checklocks:a.mu
func (a *Actuator) inherit(parent *member, tid int) {
	if a.threads[tid] != nil {
		return
	}
	s, err := readStat(tid)
	if err != nil {
		s = stat{comm: parent.comm} // it has ended already; that will be told too
	}
	if err := a.enter(parent.enclave, tid, &s, parent.original); err != nil {
		a.opts.Logger.Warn("new thread cannot be scheduled", "thread", tid, "error", err)
		a.adoptOrphan(tid, parent.original)
	} else if !parent.enclave.e.Attached() {
		a.restore(tid, &parent.original) // its maker was released after it was made
	}
}

// adoptOrphan lets go of a thread whose maker had left its enclave by the time
// that we heard of it.
// +checklocks:a.mu
func (a *Actuator) adoptOrphan(tid int, o original) {
	a.watch.drop(tid)
	a.restore(tid, &o)
	a.former[tid] = o // it may have made others
}

// +checklocks:a.mu
func (a *Actuator) restore(tid int, o *original) {
	if err := o.restore(tid); err != nil {
		a.opts.Logger.Warn("thread cannot be restored", "thread", tid, "error", err)
	}
}

// watchdog finds policies that let threads wait, events that were lost, and
// tells the guard that all is well.
func (a *Actuator) watchdog() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-a.done:
			return
		case <-a.guard.ended:
			a.opts.Logger.Error("the guard has ended; all enclaves are given up")
			a.giveUp()
			return
		case <-tick.C:
		}
		_ = a.guard.tell(&note{}) // its end shows above
		for n, why := range a.check() {
			a.opts.Logger.Warn("policy is taken away", "enclave", n.name, "reason", why)
			a.helpers.Go(func() { a.endPolicy(n, why) }) // a process that stands still takes long to end
		}
	}
}

// giveUp releases all threads: nobody would, if the actuator ended now.
func (a *Actuator) giveUp() {
	a.mu.Lock()
	all := []*enclave{}
	for _, n := range a.enclaves {
		all = append(all, n)
	}
	a.mu.Unlock()
	for _, n := range all {
		a.endPolicy(n, "the guard has ended")
	}
}

// check returns the enclaves whose policy has to go, and why.
func (a *Actuator) check() map[*enclave]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if lost := a.watch.losses(); lost != a.lost {
		a.lost = lost
		a.resync()
	}
	a.ageFormer()
	a.compare()
	bad := map[*enclave]string{}
	for _, n := range a.enclaves {
		if task, stalled := n.e.Stalled(clock()); stalled {
			bad[n] = "a thread waited for longer than the runnable timeout: " + a.members[task].comm
		}
	}
	return bad
}

// ageFormer strikes threads off that left long before any event that is still
// on its way.
// +checklocks:a.mu
func (a *Actuator) ageFormer() {
	if a.formerAge++; a.formerAge >= formerKept {
		a.formerAge = 0
		clear(a.former)
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
		case s.canRun():
			_ = t.enclave.e.Wakeup(clock(), t.task)
			a.watch.tell(tid, false)
		default:
			_ = t.enclave.e.Block(clock(), t.task)
			a.watch.tell(tid, true)
		}
		t.enclave.wake()
	}
	a.carryOut()
}
