package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct/steer/scope"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// waitTime is how long an order that waits is answered at the latest.
const waitTime = 5 * time.Second

// switchMode carries out an operator's order.
func (m *Monitor) switchMode(ctx context.Context, a wire.Ask) (wire.SwitchResult, error) {
	var o wire.SwitchOrder
	if err := json.Unmarshal(a.Args, &o); err != nil {
		return wire.SwitchResult{}, fmt.Errorf("switch: %w: %w", err, unix.EINVAL)
	}
	i, err := m.find(o.ID)
	if err != nil {
		return wire.SwitchResult{}, fmt.Errorf("switch: %w", err)
	}
	i.sw.orders.Add(1)
	defer i.sw.orders.Add(-1)
	r, err := m.switchWaiting(ctx, i, o)
	if err == nil && r.Mode == o.Mode && !i.sw.pinned.Swap(true) {
		m.mu.Lock()
		m.save()
		m.mu.Unlock()
	}
	return r, err
}

// switchWaiting tries until it succeeds, if it may, for waitTime.
func (m *Monitor) switchWaiting(ctx context.Context, i *instance, o wire.SwitchOrder) (wire.SwitchResult, error) {
	if o.Wait && o.Mode == protocol.Direct {
		i.sw.claim(1)
		defer i.sw.claim(-1)
	}
	until := time.Now().Add(waitTime)
	for {
		changed := m.switches.next()
		r, again, err := m.switchPorts(ctx, i, o)
		left := time.Until(until)
		if !again || !o.Wait || left <= 0 {
			return r, err
		}
		select {
		case <-changed:
		case <-time.After(left):
		case <-i.sw.ctx.Done():
			return r, errEnded(i)
		case <-ctx.Done():
			return r, err
		}
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
func (m *Monitor) switchPorts(ctx context.Context, i *instance, o wire.SwitchOrder) (r wire.SwitchResult, again bool, err error) {
	if o.Mode != protocol.Direct || !i.sw.hasOther(o.Ports) {
		return m.switchOnce(ctx, i, o.Mode, o.Ports, false)
	}
	back, again, err := m.switchOnce(ctx, i, protocol.Server, nil, false)
	if err != nil {
		return back, again, err
	}
	if back.Mode != protocol.Server {
		back.To, back.ViaServer = o.Mode, true
		return back, false, nil
	}
	r, again, err = m.switchOnce(ctx, i, o.Mode, o.Ports, false)
	if err != nil {
		return r, again, fmt.Errorf("it is in server mode now: %w", err)
	}
	return joined(&back, r), again, nil
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

// switchOnce tries once, for an operator or the policy. again tells whether it may work later.
func (m *Monitor) switchOnce(ctx context.Context, i *instance, to protocol.Mode, ports *scope.Ports, policy bool) (r wire.SwitchResult, again bool, err error) {
	m.mu.Lock()
	limited, gone := i.rate > 0, m.instances[i.id] != i
	m.mu.Unlock()
	if gone {
		return r, false, errEnded(i)
	}
	if limited && to == protocol.Direct {
		return r, false, fmt.Errorf("switch %q to direct: %w", i.name, errLimited)
	}
	run, err := i.sw.begin(to, ports, policy)
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
