package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"junction/direct/steer/scope"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// switchMode carries out an operator's order. What it waits for it waits for until
// caller is done, who ordered it: that one is gone then.
func (m *Monitor) switchMode(ctx, caller context.Context, a wire.Ask) (wire.SwitchResult, error) {
	var o wire.SwitchOrder
	if err := json.Unmarshal(a.Args, &o); err != nil {
		return wire.SwitchResult{}, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	i, err := m.find(o.ID)
	if err != nil {
		return wire.SwitchResult{}, err
	}
	i.sw.orders.Add(1)
	defer i.sw.orders.Add(-1)
	var r wire.SwitchResult
	if o.Wait {
		r, err = m.switchWaiting(ctx, caller, i, o)
	} else {
		r, err = m.switchPorts(ctx, i, o)
	}
	if err == nil && r.Mode == o.Mode && !i.sw.pinned.Swap(true) {
		m.mu.Lock()
		m.save()
		m.mu.Unlock()
	}
	return r, err
}

// switchWaiting waits until no other switch of the instance is under way, and until
// its turn to have a queue has come.
func (m *Monitor) switchWaiting(ctx, caller context.Context, i *instance, o wire.SwitchOrder) (r wire.SwitchResult, err error) {
	direct := o.Mode == protocol.Direct
	if direct {
		i.sw.claim(1)
		defer i.sw.claim(-1)
	}
	p := m.line.enter(direct)
	defer func() { p.leave() }()
	for {
		changed := m.switches.next()
		select {
		case <-p.turn:
			r, err = m.switchPorts(ctx, i, o)
			if !r.NoQueue && !errors.Is(err, unix.EBUSY) {
				return r, err
			}
			if r.NoQueue {
				continue // it stays the first
			}
		case <-i.sw.ctx.Done():
			return r, errEnded(i)
		case <-caller.Done():
			return r, caller.Err()
		}
		p.leave() // others need not wait for that
		select {
		case <-changed:
		case <-i.sw.ctx.Done():
			return r, errEnded(i)
		case <-caller.Done():
			return r, caller.Err()
		}
		p = m.line.enter(direct)
	}
}

// claim notes one more, or one less, who waits for a queue for the instance.
func (s *switcher) claim(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters += n
}

// errLimited: the two exclude each other.
var errLimited = fmt.Errorf("only the network server limits what an instance sends; have one without the other (junction_ctl limit NAME --rate 0): %w", unix.EPERM)

func errEnded(i *instance) error {
	return fmt.Errorf("switch %q: the instance has ended: %w", i.name, unix.ESRCH)
}

// switchPorts tries once, for an operator: from direct mode with other ports by way of
// server mode.
func (m *Monitor) switchPorts(ctx context.Context, i *instance, o wire.SwitchOrder) (r wire.SwitchResult, err error) {
	if o.Mode != protocol.Direct || !i.sw.hasOther(o.Ports) {
		return m.switchOnce(ctx, i, o.Mode, o.Ports, false)
	}
	back, err := m.switchOnce(ctx, i, protocol.Server, nil, false)
	if err != nil {
		return back, err
	}
	if back.Mode != protocol.Server {
		back.To, back.ViaServer = o.Mode, true
		return back, nil
	}
	r, err = m.switchOnce(ctx, i, o.Mode, o.Ports, false)
	if err != nil {
		return r, fmt.Errorf("it is in server mode now: %w", err)
	}
	return joined(&back, r), nil
}

// joined is what two switches in a row come to.
func joined(back *wire.SwitchResult, r wire.SwitchResult) wire.SwitchResult {
	r.From, r.ViaServer = back.From, true
	r.TotalUS += back.TotalUS
	r.Steps = slices.Concat(back.Steps, r.Steps)
	r.BlackoutUS = max(r.BlackoutUS, back.BlackoutUS)
	r.HeldTx += back.HeldTx
	r.HeldRx += back.HeldRx
	r.InFlight += back.InFlight
	r.Lost += back.Lost
	r.Duplicates += back.Duplicates
	r.Reordered += back.Reordered
	return r
}

// switchOnce tries once, for an operator or the policy. Error: unix.EBUSY, if another
// switch of the instance is under way.
func (m *Monitor) switchOnce(ctx context.Context, i *instance, to protocol.Mode, ports *scope.Ports, policy bool) (r wire.SwitchResult, err error) {
	m.mu.Lock()
	gone := m.instances[i.id] != i
	m.mu.Unlock()
	if gone {
		return r, errEnded(i)
	}
	run, err := i.sw.begin(to, ports, policy)
	if err != nil {
		return r, err
	}
	select {
	case <-run.done:
	case <-ctx.Done():
		return r, ctx.Err()
	}
	if run.freed != nil { // others may have it now
		<-run.freed
	}
	return run.result, nil
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
		i.sw.mu.Lock()
		i.sw.queueLost()
		i.sw.mu.Unlock()
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
