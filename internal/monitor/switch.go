package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct/afxdp"
	"junction/direct/steer"
	"junction/internal/monitor/wire"
	"junction/portmap"
	modeswitch "junction/switch"
	"junction/switch/protocol"
)

// stepTime is how long a step of a switch may take: long for a machine that has
// too much to do, for packets flow all the time.
const stepTime = 10 * time.Second

// switcher carries out an instance's mode switches, as its Coordinator says.
type switcher struct {
	m     *Monitor
	i     *instance
	tasks sync.WaitGroup
	ctx   context.Context // of the tasks
	stop  context.CancelFunc

	mu sync.Mutex
	// +checklocks:mu
	c *protocol.Coordinator
	// +checklocks:mu
	queue directQueue // nil without one
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
}

// switchRun is a switch under way.
type switchRun struct {
	result wire.SwitchResult
	begun  time.Time
	step   protocol.Step
	since  time.Time
	done   chan struct{} // closed when result is complete
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
	// What an action brings about at once comes after all of them.
	for _, a := range f(s.c) {
		err := s.act(a)
		s.m.opts.Logger.Debug("mode switch", "id", s.i.id, "epoch", a.Epoch, "do", a.String(), "error", err)
		if err != nil {
			s.later(func(c *protocol.Coordinator) []protocol.Action { return c.Failed(err.Error()) })
		}
	}
	s.note()
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

// act does one thing.
//
// +checklocks:s.mu
func (s *switcher) act(a protocol.Action) error {
	id := uint32(s.i.id)
	switch a.Do {
	case protocol.DoSend:
		return s.send(a.Message)
	case protocol.DoMake:
		return s.make()
	case protocol.DoDrop:
		return s.drop()
	case protocol.DoStamp:
		return s.steer(func(f fabric) error { return f.Stamp(id, protocol.Tag(a.Epoch)) })
	case protocol.DoUnstamp:
		if s.queue != nil {
			return s.steer(func(f fabric) error { return f.Stamp(id, 0) })
		}
	case protocol.DoSteer:
		if s.queue != nil { // else nothing is steered but to the server
			return s.steer(func(f fabric) error {
				if a.Mode == protocol.Direct {
					return f.SteerTo(id, s.queue)
				}
				return f.SteerTo(id, nil)
			})
		}
	case protocol.DoMark:
		s.mark(a)
	case protocol.DoTimer:
		s.setTimer()
	case protocol.DoNoTimer:
		s.turn++
	case protocol.DoReport:
		s.report(a)
	}
	return nil
}

func (s *switcher) steer(f func(fabric) error) error {
	fab, err := s.m.fabric()
	if err != nil {
		return err
	}
	return f(fab)
}

// sendTime is how long an instance may be in the way of a message. Few are on
// their way at once: the socket holds them all.
const sendTime = time.Second

// +checklocks:s.mu
func (s *switcher) send(m protocol.Message) error {
	ctx, cancel := context.WithTimeout(s.ctx, sendTime)
	defer cancel()
	v := wire.Switch{Message: m}
	var files []int
	if m.Kind == protocol.Prepare && m.To == protocol.Direct {
		e, fds := s.queue.Export()
		v.Queue, files = &e, fds
	}
	if err := wire.Send(ctx, s.i.conn, 0, wire.TypeSwitch, v, files...); err != nil {
		return fmt.Errorf("tell the instance: %w", err)
	}
	return nil
}

// make makes a queue, which takes some milliseconds.
//
// +checklocks:s.mu
func (s *switcher) make() error {
	f, err := s.m.fabric()
	if err != nil {
		return err
	}
	s.tasks.Go(func() {
		q, err := f.NewQueue(s.ctx, uint32(s.i.id))
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.noQueue = errors.Is(err, steer.ErrNoVF)
			s.tell(func(c *protocol.Coordinator) []protocol.Action { return c.Failed(err.Error()) })
			return
		}
		s.queue = q
		s.tell((*protocol.Coordinator).QueueMade)
	})
	return nil
}

// +checklocks:s.mu
func (s *switcher) drop() error {
	if s.queue == nil {
		return nil
	}
	err := s.queue.Close()
	s.queue = nil
	s.m.switches.changed()
	if err != nil {
		s.m.opts.Logger.Warn("direct queue not ended cleanly", "id", s.i.id, "name", s.i.name, "error", err)
	}
	return nil
}

// markAgain is how long a mark may take before it is sent again: a frame may be
// lost where others are too many, and a later mark says the same.
const markAgain = 100 * time.Millisecond

// mark sends a mark, behind what the NIC's program is about to pass on, until the
// step is over.
//
// +checklocks:s.mu
func (s *switcher) mark(a protocol.Action) {
	q, step := s.queue, s.c.Step()
	s.tasks.Go(func() {
		for {
			if err := s.sendMark(a, q); err != nil {
				err = fmt.Errorf("mark %d by the %v path: %w", a.Mark, a.Mode, err)
				s.event(func(c *protocol.Coordinator) []protocol.Action {
					if c.Epoch() != a.Epoch || c.Step() != step {
						return nil
					}
					return c.Failed(err.Error())
				})
				return
			}
			select {
			case <-time.After(markAgain):
			case <-s.ctx.Done():
				return
			}
			s.mu.Lock()
			over := s.c.Epoch() != a.Epoch || s.c.Step() != step
			s.mu.Unlock()
			if over {
				return
			}
		}
	})
}

func (s *switcher) sendMark(a protocol.Action, q directQueue) error {
	mac, err := net.ParseMAC(s.m.server.uplink().MAC)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("the uplink's address is unknown: %w", err)
	}
	frame := modeswitch.Probe([6]byte(mac), a.Mark.Nonce(a.Epoch))
	if a.Mode == protocol.Direct {
		if q == nil {
			return errors.New("there is no queue")
		}
		return q.Probe(frame)
	}
	if a.Mark != protocol.MarkProbe {
		afxdp.AwaitKernel() // what was decided before is in the server's queues then
	}
	args, err := json.Marshal(wire.Mark{ID: uint32(s.i.id), Frame: frame})
	if err != nil {
		return err
	}
	_, err = s.m.askServer(s.ctx, wire.Ask{Verb: "mark", Args: args})
	return err
}

// +checklocks:s.mu
func (s *switcher) setTimer() {
	s.turn++
	turn := s.turn
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(stepTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.turn == turn {
			s.tell((*protocol.Coordinator).Timeout)
		}
	})
}

// report completes the result.
//
// +checklocks:s.mu
func (s *switcher) report(a protocol.Action) {
	s.note()
	r := s.run
	if r == nil {
		return // of a switch that the monitor before began
	}
	r.result.Mode, r.result.Reason, r.result.NoQueue = a.Mode, a.Reason, s.noQueue
	r.result.TotalUS = micros(time.Since(r.begun))
	s.last, s.run = &r.result, nil
	log := s.m.opts.Logger.With("id", s.i.id, "name", s.i.name, "from", r.result.From, "to", r.result.To, "mode", a.Mode)
	if a.Reason != "" {
		log.Warn("mode switch rolled back", "reason", a.Reason)
	} else {
		log.Info("mode switched", "blackout_us", r.result.BlackoutUS, "lost", r.result.Lost)
	}
	close(r.done)
	s.m.switches.changed()
}

// received takes an instance's message.
func (s *switcher) received(w wire.Switch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.Report != nil && s.run != nil && w.Epoch == s.c.Epoch() {
		s.run.result.SwitchReport = *w.Report
	}
	s.tell(func(c *protocol.Coordinator) []protocol.Action { return c.Receive(w.Message) })
}

// begin begins a switch and returns it.
func (s *switcher) begin(to protocol.Mode) (*switchRun, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.c.Mode()
	do, refused := s.c.Request(to)
	if refused != nil {
		return nil, fmt.Errorf("switch %q to %v: %w: %w", s.i.name, to, refused, unix.EBUSY)
	}
	now := time.Now()
	r := &switchRun{begun: now, since: now, step: s.c.Step(), done: make(chan struct{})}
	r.result = wire.SwitchResult{Schema: 1, ID: uint32(s.i.id), Name: s.i.name, From: from, To: to, Steps: []wire.SwitchStep{}}
	s.run, s.noQueue = r, false
	s.tell(func(*protocol.Coordinator) []protocol.Action { return do })
	return r, nil
}

// resume goes on with an instance that another monitor had: in the mode that it
// is in, if that is certain, else it goes to server mode.
func (s *switcher) resume(back *wire.Rejoin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, err := s.m.fabric(); err == nil {
		s.queue = f.QueueOf(uint32(s.i.id))
	}
	var do []protocol.Action
	switch {
	case back.Direct && !back.Switching && s.queue != nil:
		s.c = protocol.New(protocol.Direct, back.Epoch)
		return
	case back.Direct || back.Switching:
		s.c, do = protocol.Resume(back.Epoch)
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
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	_ = s.drop() // one that was made too late
}

// switchStatus is what status tells of an instance's mode.
type switchStatus struct {
	mode  protocol.Mode
	step  string // empty without a switch
	last  *wire.SwitchResult
	queue *steer.VFStats
}

func (s *switcher) status() (st switchStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.mode, st.last = s.c.Mode(), s.last
	if step := s.c.Step(); step != protocol.Idle {
		st.step = fmt.Sprintf("to %v: %v", s.c.To(), step)
	}
	if s.queue != nil {
		if stats, err := s.queue.Stats(); err == nil {
			st.queue = &stats
		}
	}
	return st
}

// waitTime is how long an order that waits is answered at the latest.
const waitTime = 5 * time.Second

// switchMode carries out an operator's order.
func (m *Monitor) switchMode(ctx context.Context, a wire.Ask) (wire.SwitchResult, error) {
	var o wire.SwitchOrder
	if err := json.Unmarshal(a.Args, &o); err != nil {
		return wire.SwitchResult{}, fmt.Errorf("switch: %w: %w", err, unix.EINVAL)
	}
	until := time.Now().Add(waitTime)
	for {
		changed := m.switches.next()
		r, again, err := m.switchOnce(ctx, o)
		left := time.Until(until)
		if !again || !o.Wait || left <= 0 {
			return r, err
		}
		select {
		case <-changed:
		case <-time.After(left):
		case <-ctx.Done():
			return r, err
		}
	}
}

// errLimited: the two exclude each other.
var errLimited = fmt.Errorf("only the network server limits what an instance sends; have one without the other (junction_ctl limit NAME --rate 0): %w", unix.EPERM)

// switchOnce tries once. again tells whether it may work later.
func (m *Monitor) switchOnce(ctx context.Context, o wire.SwitchOrder) (r wire.SwitchResult, again bool, err error) {
	m.mu.Lock()
	i := m.instances[portmap.Instance(o.ID)]
	limited := i != nil && i.rate > 0
	m.mu.Unlock()
	if i == nil {
		return r, false, fmt.Errorf("switch: no instance %d: %w", o.ID, unix.ESRCH)
	}
	if limited && o.Mode == protocol.Direct {
		return r, false, fmt.Errorf("switch %q to direct: %w", i.name, errLimited)
	}
	run, err := i.sw.begin(o.Mode)
	if err != nil {
		return r, true, err
	}
	select {
	case <-run.done:
		return run.result, run.result.NoQueue, nil
	case <-ctx.Done():
		return r, false, ctx.Err()
	}
}

// serverGone tells all switches that the network server has ended.
func (m *Monitor) serverGone() {
	for _, i := range m.present() {
		i.sw.event((*protocol.Coordinator).ServerGone)
	}
}

// queuesLost tells all switches that the queues have ended with the uplink.
func (m *Monitor) queuesLost() {
	for _, i := range m.present() {
		i.sw.event((*protocol.Coordinator).QueueLost)
	}
}

// notice wakes all who wait for a change.
type notice struct {
	mu sync.Mutex
	// +checklocks:mu
	ch chan struct{}
}

// next is closed at the next change.
func (n *notice) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notice) changed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}
