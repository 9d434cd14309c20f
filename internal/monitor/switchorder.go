package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/portmap"
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
	m.mu.Lock()
	i := m.instances[portmap.Instance(o.ID)]
	m.mu.Unlock()
	if i == nil {
		return wire.SwitchResult{}, fmt.Errorf("switch: no instance %d: %w", o.ID, unix.ESRCH)
	}
	until := time.Now().Add(waitTime)
	for {
		changed := m.switches.next()
		r, again, err := m.switchOnce(ctx, i, o.Mode)
		left := time.Until(until)
		if !again || !o.Wait || left <= 0 {
			return r, err
		}
		if err := i.sw.waitFor(ctx, changed, left); err != nil {
			return r, err
		}
	}
}

// errLimited: the two exclude each other.
var errLimited = fmt.Errorf("only the network server limits what an instance sends; have one without the other (junction_ctl limit NAME --rate 0): %w", unix.EPERM)

// waitFor waits for a change that may let a switch begin, or for as long as it may.
func (s *switcher) waitFor(ctx context.Context, changed <-chan struct{}, limit time.Duration) error {
	add := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiters += n
	}
	add(1)
	defer add(-1)
	select {
	case <-changed:
	case <-time.After(limit):
	case <-s.ctx.Done():
		return errEnded(s.i)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func errEnded(i *instance) error {
	return fmt.Errorf("switch %q: the instance has ended: %w", i.name, unix.ESRCH)
}

// switchOnce tries once. again tells whether it may work later.
func (m *Monitor) switchOnce(ctx context.Context, i *instance, to protocol.Mode) (r wire.SwitchResult, again bool, err error) {
	m.mu.Lock()
	limited, gone := i.rate > 0, m.instances[i.id] != i
	m.mu.Unlock()
	if gone {
		return r, false, errEnded(i)
	}
	if limited && to == protocol.Direct {
		return r, false, fmt.Errorf("switch %q to direct: %w", i.name, errLimited)
	}
	run, err := i.sw.begin(to)
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
