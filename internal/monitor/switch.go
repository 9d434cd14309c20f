package monitor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct/steer"
	"junction/direct/steer/scope"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/portmap/table"
	"junction/switch/protocol"
)

// switcher carries out an instance's mode switches, as its Coordinator says.
type switcher struct {
	m     *Monitor
	i     *instance
	tasks sync.WaitGroup
	ctx   context.Context // of the tasks
	stop  context.CancelFunc

	pinned atomic.Bool  // an operator has decided on the mode,
	orders atomic.Int32 // or is about to

	mu sync.Mutex
	// +checklocks:mu
	c *protocol.Coordinator
	// +checklocks:mu
	returning bool // the instance was another monitor's, and resume is still to come
	// +checklocks:mu
	queue directQueue // nil without one
	// +checklocks:mu
	ports *scope.Ports // that the present switch is to have in direct mode; nil: all
	// +checklocks:mu
	lost bool // the queue is gone, and that has been told
	// +checklocks:mu
	freed chan struct{} // closed when the last queue has ended; nil: there was none
	// +checklocks:mu
	timer *time.Timer
	// +checklocks:mu
	turn uint64 // of the timer: counts up, so that one that is too late is known
	// +checklocks:mu
	noQueue bool // why the present switch failed
	// +checklocks:mu
	run *switchRun // nil without one
	// +checklocks:mu
	last *wire.SwitchResult
	// +checklocks:mu
	waiters int // orders that wait until there is a queue for it
}

// switchRun is a switch under way.
type switchRun struct {
	result wire.SwitchResult
	begun  time.Time
	step   protocol.Step
	since  time.Time
	done   chan struct{} // closed when result is complete
	freed  chan struct{} // closed when its queue has ended; nil: it has not given one up
}

// newSwitcher makes that of an instance in server mode.
func newSwitcher(m *Monitor, i *instance) *switcher {
	s := &switcher{m: m, i: i, c: protocol.New(protocol.Server, 0)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// event tells the Coordinator something and does what it wants.
func (s *switcher) event(f func(*protocol.Coordinator) []protocol.Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(f)
}

// +checklocks:s.mu
func (s *switcher) tell(f func(*protocol.Coordinator) []protocol.Action) {
	before := s.c.Step()
	// What an action brings about at once comes after all of them.
	for _, a := range f(s.c) {
		s.at(a.String())
		err := s.act(a)
		s.m.opts.Logger.Debug("mode switch", "id", s.i.id, "epoch", a.Epoch, "do", a.String(), "error", err)
		if err != nil {
			s.later(func(c *protocol.Coordinator) []protocol.Action { return c.Failed(err.Error()) })
		}
	}
	s.note()
	if s.c.Step() == protocol.Idle && before != protocol.Idle {
		s.m.switches.changed()
	}
}

// at tells a test where the switch is.
func (s *switcher) at(what string) {
	if f := s.m.opts.AtSwitch; f != nil {
		f(uint32(s.i.id), what)
	}
}

// later tells the Coordinator something when the present event is done with.
func (s *switcher) later(f func(*protocol.Coordinator) []protocol.Action) {
	s.tasks.Go(func() { s.event(f) })
}

// note notes when a step ends.
//
// +checklocks:s.mu
func (s *switcher) note() {
	r := s.run
	if r == nil || r.step == s.c.Step() {
		return
	}
	now := time.Now()
	r.result.Steps = append(r.result.Steps, wire.SwitchStep{Name: r.step.String(), US: micros(now.Sub(r.since))})
	r.step, r.since = s.c.Step(), now
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// report completes the result.
//
// +checklocks:s.mu
func (s *switcher) report(a protocol.Action) {
	s.note()
	r := s.run
	if r == nil {
		return
	}
	r.result.Mode, r.result.Reason, r.result.NoQueue = a.Mode, a.Reason, s.noQueue
	r.result.TotalUS = micros(time.Since(r.begun))
	r.result.Ports = s.directPorts(a.Mode)
	s.run = nil
	defer close(r.done)
	if r.result.From == r.result.To && a.Reason == "" {
		return // it was in that mode: the last switch is still the last one
	}
	s.last = &r.result
	log := s.m.opts.Logger.With("id", s.i.id, "name", s.i.name, "from", r.result.From, "to", r.result.To, "mode", a.Mode)
	if a.Reason != "" {
		log.Warn("mode switch rolled back", "reason", a.Reason)
	} else {
		log.Info("mode switched", "blackout_us", r.result.BlackoutUS, "lost", r.result.Lost)
	}
}

// received takes an instance's message.
func (s *switcher) received(w wire.Switch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Reason = control.Printable(w.Reason) // operators get it
	s.at("received " + w.Message.String())
	if w.Report != nil && s.run != nil && w.Epoch == s.c.Epoch() {
		s.run.result.SwitchReport = *w.Report
	}
	s.tell(func(c *protocol.Coordinator) []protocol.Action { return c.Receive(w.Message) })
}

// decided tells whether the mode is an operator's choice.
func (s *switcher) decided() bool { return s.pinned.Load() || s.orders.Load() > 0 }

// directPorts returns which ports are in direct mode, if the mode is that and only
// some are.
//
// +checklocks:s.mu
func (s *switcher) directPorts(mode protocol.Mode) *scope.Ports {
	if mode != protocol.Direct || s.queue == nil {
		return nil
	}
	return s.queue.Ports()
}

// hasOther tells whether the instance is in direct mode with other ports than these.
// A queue is for the same ones as long as it is.
func (s *switcher) hasOther(ports *scope.Ports) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c.Mode() == protocol.Direct && s.c.Step() == protocol.Idle && s.queue != nil && !s.queue.Ports().Equal(ports)
}

// begin begins a switch and returns it. The policy, other than an operator, does
// not switch what is pinned.
func (s *switcher) begin(to protocol.Mode, ports *scope.Ports, policy bool) (*switchRun, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if policy && s.decided() {
		return nil, fmt.Errorf("switch %q to %v: an operator has decided on its mode: %w", s.i.name, to, unix.EPERM)
	}
	if s.returning {
		return nil, fmt.Errorf("switch %q to %v: %w", s.i.name, to, errReturning)
	}
	if to == protocol.Direct && s.limited() {
		return nil, fmt.Errorf("switch %q to direct: %w", s.i.name, errLimited)
	}
	from := s.c.Mode()
	do, refused := s.c.Request(to)
	if refused != nil {
		return nil, fmt.Errorf("switch %q to %v: %w: %w", s.i.name, to, refused, unix.EBUSY)
	}
	r := s.newRun(from, to)
	s.ports = ports
	s.tell(func(*protocol.Coordinator) []protocol.Action { return do })
	return r, nil
}

// newRun makes the record of a switch.
//
// +checklocks:s.mu
func (s *switcher) newRun(from, to protocol.Mode) *switchRun {
	now := time.Now()
	r := &switchRun{begun: now, since: now, step: s.c.Step(), done: make(chan struct{})}
	r.result = wire.SwitchResult{Schema: 1, ID: uint32(s.i.id), Name: s.i.name, From: from, To: to, Steps: []wire.SwitchStep{}}
	s.run, s.noQueue = r, false
	return r
}

// limited tells whether the instance may send so much only. It is the switch's lock
// that keeps a limit and direct mode apart (setLimit).
//
// +checklocks:s.mu
func (s *switcher) limited() bool {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.i.rate > 0
}

// errReturning: in which mode the instance is, is not known yet.
var errReturning = fmt.Errorf("it has just come back from the monitor before; try again: %w", unix.EBUSY)

// setLimit calls set, unless that limits an instance which is in direct mode or on its way.
func (s *switcher) setLimit(limits bool, set func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limits && s.returning {
		return fmt.Errorf("limit %q: %w", s.i.name, errReturning)
	}
	mode := s.c.Mode()
	if s.c.Step() != protocol.Idle && s.c.To() == protocol.Direct {
		mode = protocol.Direct
	}
	if limits && mode != protocol.Server {
		return fmt.Errorf("%q is in %v mode, or about to be: %w", s.i.name, mode, errLimited)
	}
	set()
	return nil
}

// queueLost says that the queue is not there any more: it goes to server mode.
//
// +checklocks:s.mu
func (s *switcher) queueLost() {
	if s.queue == nil || s.lost {
		return
	}
	s.lost = true
	if s.run == nil && s.c.Mode() == protocol.Direct {
		s.newRun(protocol.Direct, protocol.Direct) // it was to stay there
	}
	s.tell((*protocol.Coordinator).QueueLost)
}

// resume goes on with an instance that another monitor had: in the mode that it
// is in, if that is certain, else it goes to server mode.
func (s *switcher) resume(back *wire.Rejoin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.returning = false
	defer s.m.switches.changed() // orders may wait for that
	if f, err := s.m.fabric(); err == nil {
		s.queue = f.QueueOf(uint32(s.i.id))
	}
	var do []protocol.Action
	useless := s.queue != nil && slices.ContainsFunc(s.queue.Devices(), linkGone) // nobody told of it
	switch {
	case useless && (back.Direct || back.Switching):
		s.c = protocol.New(protocol.Direct, back.Epoch)
		s.queueLost()
		return
	case back.Direct && !back.Switching && s.queue != nil:
		s.c = protocol.New(protocol.Direct, back.Epoch)
		return
	case back.Direct || back.Switching:
		s.c, do = protocol.Resume(back.Epoch)
		s.newRun(s.c.Mode(), protocol.Direct)
	default:
		s.c = protocol.New(protocol.Server, back.Epoch)
		do = []protocol.Action{{Do: protocol.DoSteer, Mode: protocol.Server}, {Do: protocol.DoUnstamp}, {Do: protocol.DoDrop}}
	}
	s.tell(func(*protocol.Coordinator) []protocol.Action { return do })
}

// gone ends all for an instance that has ended.
func (s *switcher) gone() {
	s.event((*protocol.Coordinator).InstanceGone)
	s.stop()
	s.tasks.Wait()
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.drop() // one that was made too late
	s.mu.Unlock()
	s.tasks.Wait()
}

// switchStatus is what status tells of an instance's mode.
type switchStatus struct {
	mode  protocol.Mode
	ports *scope.Ports // in direct mode, if only some are
	step  string       // empty without a switch
	last  *wire.SwitchResult
	queue *steer.VFStats
}

func (s *switcher) status() (st switchStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.mode, st.last = s.c.Mode(), s.last
	st.ports = s.directPorts(st.mode)
	if step := s.c.Step(); step != protocol.Idle {
		st.step = fmt.Sprintf("to %v: %v", s.c.To(), step)
	} else if s.waiters > 0 && st.mode == protocol.Server {
		st.step = "to direct: waits for a queue"
	}
	if s.queue != nil {
		if stats, err := s.queue.Stats(); err == nil {
			st.queue = &stats
		}
	}
	return st
}

// modeOf tells the mode of one port.
func (st *switchStatus) modeOf(proto table.Proto, port uint16) protocol.Mode {
	if st.mode == protocol.Direct && !st.ports.Has(proto, port) {
		return protocol.Server
	}
	return st.mode
}
