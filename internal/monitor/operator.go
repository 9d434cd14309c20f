package monitor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct/steer"
	"junction/direct/steer/scope"
	"junction/internal/config"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/portmap"
)

// Status is the monitor's state as a whole.
type Status struct {
	Schema        int              `json:"schema"`
	PID           int              `json:"pid"`
	UptimeSeconds float64          `json:"uptime_seconds"`
	Shared        []netip.Prefix   `json:"shared"`
	Gateways      []netip.Addr     `json:"gateways,omitempty"`
	Dedicated     []netip.Prefix   `json:"dedicated,omitempty"`
	Server        ServerStatus     `json:"netserver"`
	Instances     []InstanceStatus `json:"instances"`
	// DirectQueues are the instances' own, with their counters.
	DirectQueues []steer.VFStats `json:"direct_queues"`
	// Auto is the policy that gives queues to the busiest.
	Auto AutoStatus `json:"auto"`
	// Offences counts what peers did that no honest one does.
	Offences []Offence `json:"offences"`
}

// ServerStatus is the network server's.
type ServerStatus struct {
	PID    int        `json:"pid"` // 0: none runs
	Ready  bool       `json:"ready"`
	Uplink wire.Ready `json:"uplink"` // as the last one that was ready had it
	ServerHistory
}

// InstanceStatus is an instance's.
type InstanceStatus struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
	PID  int32  `json:"pid"`
	UID  uint32 `json:"uid"`
	Mode string `json:"mode"`
	// DirectPorts are the local ports that are in direct mode, if only some are; the
	// others are with the network server.
	DirectPorts *scope.Ports   `json:"direct_ports,omitempty"`
	Shared      bool           `json:"shared"`
	Addresses   []netip.Prefix `json:"addresses"`
	Rate        uint64         `json:"rate_bytes_per_second"` // 0: no limit
	Priority    string         `json:"priority"`
	Weight      uint32         `json:"weight"`
	AgeSeconds  float64        `json:"age_seconds"`
	// PortsRefused is how often it wanted a port beyond its share.
	PortsRefused uint64 `json:"ports_refused"`
	// Switching says where a switch under way is, LastSwitch how the last one
	// went, Queue what passed the queue of an instance in direct mode.
	Switching  string             `json:"switching,omitempty"`
	LastSwitch *wire.SwitchResult `json:"last_switch,omitempty"`
	Queue      *steer.VFStats     `json:"queue,omitempty"`
	// Pinned: an operator has decided on the mode, so the policy does not.
	// RatePPS are packets per second, and Reason says why it is in its mode: both
	// the policy's, while it is on.
	Pinned  bool    `json:"pinned"`
	RatePPS float64 `json:"rate_pps,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// PortStatus is an owned port's.
type PortStatus struct {
	Proto    string         `json:"proto"`
	Endpoint netip.AddrPort `json:"endpoint"`
	ID       uint32         `json:"id"`
	Name     string         `json:"name"`
	State    string         `json:"state"`
	Mode     string         `json:"mode"`
}

// serveOperator answers an operator's questions.
func (m *Monitor) serveOperator(ctx context.Context, c *control.Conn) error {
	in, caller, stop := listen(ctx, c)
	defer stop()
	for {
		env, ok := <-in
		if !ok {
			return context.Cause(caller)
		}
		var ask wire.Ask
		var err error
		if err = wire.Decode(&env, wire.TypeAsk, &ask); err != nil {
			env.Close()
			return err
		}
		answer, err := m.answer(ctx, caller, c.Peer(), ask, &env)
		env.Close()
		if err != nil {
			err = refuseErr(ctx, c, env.ID, err)
		} else {
			err = wire.Send(ctx, c, env.ID, wire.TypeAnswer, answer)
		}
		if err != nil {
			return err
		}
	}
}

// listen receives what comes, until stop is called. caller is done, for a reason, when
// nothing more will come: who is at the other side is gone.
func listen(ctx context.Context, c *control.Conn) (in <-chan control.Envelope, caller context.Context, stop func()) {
	caller, gone := context.WithCancelCause(ctx)
	ch := make(chan control.Envelope)
	go func() {
		defer close(ch)
		r := wire.Receiver{Conn: c}
		for {
			env, err := r.Receive(caller)
			if err != nil {
				gone(err)
				return
			}
			select {
			case ch <- env:
			case <-caller.Done():
				env.Close()
			}
		}
	}()
	return ch, caller, func() {
		gone(context.Canceled)
		for env := range ch {
			env.Close()
		}
	}
}

// answer does what an operator, who is there until caller is done, asks for with the
// message in env.
func (m *Monitor) answer(ctx, caller context.Context, peer control.Peer, a wire.Ask, env *control.Envelope) (any, error) {
	switch a.Verb {
	case "status":
		return m.Status(), nil
	case "ports":
		return m.portStatus(), nil
	case "stats":
		return m.askServer(ctx, a)
	case wire.SchedLook:
		return m.schedLook()
	case "exec", "signal":
		files := env.Files
		env.Files = nil
		return m.askInstance(ctx, peer, a, files...)
	}
	if err := privileged(peer); err != nil {
		return nil, err
	}
	switch a.Verb {
	case "restart":
		return m.restart(ctx)
	case "limit":
		return m.limit(ctx, a)
	case "capture", "trace":
		files := env.Files
		env.Files = nil
		return m.askServer(ctx, a, files...)
	case "upgrade":
		return m.upgrade(ctx, a)
	case "switch":
		return m.switchMode(ctx, caller, a)
	case "auto":
		return m.setAuto(a)
	case "unpin":
		return m.unpin(a)
	case wire.SchedCreate, wire.SchedDestroy, wire.SchedPolicy, wire.SchedPush, wire.SchedJoin:
		return m.schedOrder(ctx, peer, a)
	}
	return nil, fmt.Errorf("unknown request %q; use programs of one release: %w", a.Verb, unix.ENOSYS)
}

// privileged refuses all but root and the monitor's own user.
func privileged(p control.Peer) error {
	if p.UID == 0 || int(p.UID) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("user %d may only look; ask as root: %w", p.UID, unix.EPERM)
}

// Status returns the state as it is.
func (m *Monitor) Status() Status {
	s := Status{
		Schema: 1, PID: os.Getpid(), UptimeSeconds: time.Since(m.start).Seconds(),
		Shared: m.opts.Shared, Gateways: m.opts.Gateways, Dedicated: m.opts.Dedicated,
		Server: m.server.status(), Instances: []InstanceStatus{}, DirectQueues: m.uplink.stats(), Auto: m.auto.status(), Offences: m.offences.list(),
	}
	for _, i := range m.present() {
		s.Instances = append(s.Instances, m.instanceStatus(i))
	}
	s.Instances = append(s.Instances, m.late()...)
	slices.SortFunc(s.Instances, func(a, b InstanceStatus) int { return int(a.ID) - int(b.ID) })
	return s
}

// awaitedMode is shown for an instance that the monitor before had, and that has not
// come back yet.
const awaitedMode = "awaited"

// late returns the instances that are awaited.
func (m *Monitor) late() (all []InstanceStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.awaiting {
		all = append(all, InstanceStatus{
			ID: r.ID, Name: r.Name, PID: r.Peer.PID, UID: r.Peer.UID, Mode: awaitedMode,
			Shared: r.Shared, Addresses: r.Prefixes, Rate: r.Rate, Weight: max(1, r.Weight),
			Priority: string(cmp.Or(r.Priority, config.BestEffort)), AgeSeconds: time.Since(r.Since).Seconds(),
		})
	}
	return all
}

// present returns all instances.
func (m *Monitor) present() []*instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.instances))
}

func (m *Monitor) instanceStatus(i *instance) InstanceStatus {
	sw := i.sw.status() // not with m.mu held: a queue may just be ended, which takes its time
	rate, reason := m.auto.verdict(i.id)
	m.mu.Lock()
	defer m.mu.Unlock()
	return InstanceStatus{
		ID: uint32(i.id), Name: i.name, PID: i.peer.PID, UID: i.peer.UID, Mode: sw.mode.String(), DirectPorts: sw.ports,
		Shared: i.shared, Addresses: i.prefixes, Rate: i.rate, Priority: string(cmp.Or(i.priority, config.BestEffort)), Weight: max(1, i.weight), AgeSeconds: time.Since(i.since).Seconds(), PortsRefused: i.refused,
		Switching: sw.step, LastSwitch: sw.last, Queue: sw.queue,
		Pinned: i.sw.pinned.Load(), RatePPS: rate, Reason: reason,
	}
}

func (s *supervisor) status() ServerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := ServerStatus{Ready: s.session != nil, Uplink: s.link, ServerHistory: s.history}
	out.PID = s.proc.PID
	return out
}

func (m *Monitor) portStatus() []PortStatus {
	all := make(map[portmap.Instance]switchStatus)
	for _, i := range m.present() {
		all[i.id] = i.sw.status()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []PortStatus{}
	for _, p := range m.ports.Ports() {
		s := PortStatus{Proto: p.Proto.String(), Endpoint: p.Endpoint, ID: uint32(p.Owner), State: p.State.String()}
		if i := m.instances[p.Owner]; i != nil {
			s.Name = i.name
			sw := all[p.Owner]
			s.Mode = sw.modeOf(p.Proto, p.Endpoint.Port()).String()
		} else if r, ok := m.awaiting[p.Owner]; ok {
			s.Name, s.Mode = r.Name, awaitedMode
		}
		out = append(out, s)
	}
	return out
}

// askTime is how long the network server has to answer a question.
const askTime = 2 * time.Second

// askServer asks the network server. It takes files over.
func (m *Monitor) askServer(ctx context.Context, a wire.Ask, files ...int) (json.RawMessage, error) {
	x := m.server.current()
	if x == nil {
		closeAll(files)
		return nil, errNoServer
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return x.ask(ctx, a, files...)
}
