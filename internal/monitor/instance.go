package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/config"
	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/portmap"
	"junction/portmap/table"
)

// instance is one that has joined.
type instance struct {
	id       portmap.Instance
	name     string
	peer     control.Peer
	conn     *control.Conn
	shared   bool
	prefixes []netip.Prefix
	mask     uint64               // of shared addresses
	rings    [ipc.FilesPerEnd]int // the server's side; the instance has its own
	rate     uint64               // bytes per second; 0: no limit
	priority config.Priority
	weight   uint32 // at the uplink; 0 is 1
	refused  uint64 // ports beyond its share, with the monitor's mu held
	since    time.Time
	asked    pending
	sw       *switcher
	back     wire.Rejoin // what it said when it came back
	// wasPinned: it was when the monitor before died.
	wasPinned bool
}

// serveInstance gives an instance its lease, for as long as it is connected.
func (m *Monitor) serveInstance(ctx context.Context, c *control.Conn, name string) error {
	r := wire.Receiver{Conn: c}
	env, err := r.Receive(ctx)
	if err != nil {
		return err
	}
	defer env.Close()
	var join wire.Join
	if err := wire.Decode(&env, wire.TypeJoin, &join); err != nil {
		return err
	}
	ready, err := m.server.awaitReady(ctx)
	if err != nil {
		return err
	}
	i := &instance{name: name, peer: c.Peer(), conn: c, since: time.Now()}
	i.sw = newSwitcher(m, i)
	pair, err := m.join(i, join)
	if err != nil {
		return refuseErr(ctx, c, env.ID, fmt.Errorf("instance %q: %w", name, err))
	}
	defer m.leave(i)
	m.opts.Logger.Info("instance joined", "id", i.id, "name", name, "pid", i.peer.PID, "addresses", i.prefixes)
	if err := m.welcome(ctx, i, pair, env.ID, ready.Link); err != nil {
		return errors.Join(err, pair.Close())
	}
	if err := pair.Close(); err != nil {
		return err
	}
	return m.serveRequests(ctx, i, &r)
}

// serveRequests answers an instance until the connection ends.
func (m *Monitor) serveRequests(ctx context.Context, i *instance, r *wire.Receiver) error {
	defer i.asked.end()
	for {
		env, err := r.Receive(ctx)
		if err != nil {
			return err
		}
		if err := m.request(ctx, i, &env); err != nil {
			return err
		}
	}
}

// latencyWeight is the weight at the uplink that a latency-critical instance
// begins with; others have 1.
const latencyWeight = 8

// prioritize gives an instance the weight that its priority has. A weight beyond
// 1 is at others' cost, so it is an operator's to give, as with limit.
func (i *instance) prioritize(p config.Priority) error {
	i.priority = p
	switch p {
	case config.LatencyCritical:
		if privileged(i.peer) == nil {
			i.weight = latencyWeight
		}
	case "", config.BestEffort:
	default:
		return fmt.Errorf("priority %q: accepted: %s, %s: %w", p, config.LatencyCritical, config.BestEffort, unix.EINVAL)
	}
	return nil
}

// join gives an instance a number, addresses and rings.
func (m *Monitor) join(i *instance, j wire.Join) (*ipc.Pair, error) {
	if err := i.prioritize(j.Priority); err != nil {
		return nil, err
	}
	if err := m.addresses(i, j.Addrs); err != nil {
		return nil, err
	}
	pair, err := ipc.NewPair(m.opts.Rings)
	if err != nil {
		return nil, err
	}
	if i.rings, err = duplicateRings(pair.Files(ipc.ServerSide)); err != nil {
		return nil, errors.Join(err, pair.Close())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i.id = m.number()
	m.advance()
	err = m.ports.Join(i.id, m.lease(i))
	m.publish()
	if err != nil {
		closeAll(i.rings[:])
		return nil, errors.Join(err, pair.Close())
	}
	m.instances[i.id] = i
	m.server.attach(i)
	m.save()
	return pair, nil
}

// lease is what an instance is allowed.
func (m *Monitor) lease(i *instance) portmap.Lease {
	l := portmap.Lease{Mode: serverMode, MinPort: m.opts.MinPort}
	for _, p := range i.prefixes {
		l.Addrs = append(l.Addrs, p.Addr())
	}
	return l
}

func duplicateRings(fds [ipc.FilesPerEnd]int) ([ipc.FilesPerEnd]int, error) {
	dups, err := duplicate(fds[:])
	if err != nil {
		return [ipc.FilesPerEnd]int{}, err
	}
	return [ipc.FilesPerEnd]int(dups), nil
}

// number finds a number that no instance has.
//
// +checklocks:m.mu
func (m *Monitor) number() portmap.Instance {
	for {
		m.last = m.last%table.MaxOwner + 1
		if m.instances[m.last] == nil && !m.awaited(m.last) {
			return m.last
		}
	}
}

// addresses finds the prefixes for what an instance asked for.
func (m *Monitor) addresses(i *instance, want []netip.Addr) error {
	if len(want) == 0 {
		i.shared, i.prefixes = true, m.opts.Shared
		i.mask = 1<<len(m.opts.Shared) - 1
		return nil
	}
	for _, a := range want {
		if slices.ContainsFunc(m.opts.Shared, func(s netip.Prefix) bool { return s.Addr() == a }) {
			return fmt.Errorf("%v is the shared address; leave --ip out to use it: %w", a, unix.EADDRINUSE)
		}
		p, err := m.opts.prefixFor(a)
		if err != nil {
			return err
		}
		i.prefixes = append(i.prefixes, p)
	}
	return nil
}

// welcome tells an instance its lease.
func (m *Monitor) welcome(ctx context.Context, i *instance, pair *ipc.Pair, id uint32, l wire.Link) error {
	joined := wire.Joined{ID: uint32(i.id), Shared: i.shared, Prefixes: i.prefixes, Link: l}
	if i.priority == config.LatencyCritical && i.weight != latencyWeight {
		joined.Warnings = append(joined.Warnings, fmt.Sprintf("priority %s is for root's instances: this one has weight 1; root may say otherwise: junction_ctl limit %d --weight %d", i.priority, i.id, latencyWeight))
	}
	for _, g := range m.opts.Gateways {
		if slices.ContainsFunc(i.prefixes, func(p netip.Prefix) bool {
			return p.Masked().Contains(g) || g.IsLinkLocalUnicast() && p.Addr().Is6()
		}) {
			joined.Gateways = append(joined.Gateways, g)
		}
	}
	if err := wire.Send(ctx, i.conn, id, wire.TypeJoined, joined); err != nil {
		return err
	}
	files := pair.Files(ipc.InstanceSide)
	if err := i.conn.Send(ctx, id, control.Rings{Side: ipc.InstanceSide, Queues: 1}, files[:]...); err != nil {
		return err
	}
	escrow, err := control.ListenFile(m.opts.escrowPath(i.id))
	if err != nil {
		return err
	}
	defer escrow.Close()
	files = pair.Files(ipc.ServerSide)
	return wire.Send(ctx, i.conn, id, wire.TypeEscrow, wire.Escrow{}, append([]int{int(escrow.Fd())}, files[:]...)...)
}

// find finds an instance that an order is about. Errors: unix.ESRCH, and unix.EAGAIN for
// one of the monitor before that is awaited.
func (m *Monitor) find(id uint32) (*instance, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.instances[portmap.Instance(id)]; i != nil {
		return i, nil
	}
	if r, ok := m.awaiting[portmap.Instance(id)]; ok {
		return nil, fmt.Errorf("instance %q has not come back since another monitor took over; it may within %v, so ask again, or end its process (%d): %w", r.Name, lateTime, r.Peer.PID, unix.EAGAIN)
	}
	return nil, fmt.Errorf("no instance %d: %w", id, unix.ESRCH)
}

// leave frees all that an instance had.
func (m *Monitor) leave(i *instance) {
	i.sw.gone()
	m.uplink.left(i.id)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	m.ports.Leave(i.id)
	m.publish()
	delete(m.instances, i.id)
	m.server.detach(i.id)
	closeAll(i.rings[:])
	_ = os.Remove(m.opts.escrowPath(i.id)) // it may never have been made
	m.save()
	m.opts.Logger.Info("instance left", "id", i.id, "name", i.name)
}

// request answers one message of an instance. An error ends the connection.
func (m *Monitor) request(ctx context.Context, i *instance, env *control.Envelope) error {
	defer env.Close()
	switch env.Message.Type() {
	case wire.TypeBind:
		var b wire.Bind
		if err := wire.Decode(env, wire.TypeBind, &b); err != nil {
			return err
		}
		port, err := m.bind(i, &b)
		if err != nil {
			return refuseErr(ctx, i.conn, env.ID, err)
		}
		return wire.Send(ctx, i.conn, env.ID, wire.TypeBound, wire.Bound{Port: port})
	case wire.TypeClose:
		var c wire.Close
		if err := wire.Decode(env, wire.TypeClose, &c); err != nil {
			return err
		}
		if err := m.release(i, portmap.Socket(c.Socket)); err != nil {
			return refuseErr(ctx, i.conn, env.ID, err)
		}
		return wire.Send(ctx, i.conn, env.ID, wire.TypeClosed, wire.Closed{})
	case wire.TypeSwitch:
		var w wire.Switch
		if err := wire.Decode(env, wire.TypeSwitch, &w); err != nil {
			return err
		}
		i.sw.received(w)
		return nil
	case control.TypeError, wire.TypeAnswer:
		return i.asked.take(env)
	}
	return fmt.Errorf("%w: type %d from an instance", control.ErrProtocol, env.Message.Type())
}

// bind asks the portmap. Within an instance its own stack decides who may
// share a port, so the portmap lets all of an instance's holders share.
func (m *Monitor) bind(i *instance, b *wire.Bind) (uint16, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	ep, err := m.ports.Bind(i.id, request(b))
	m.publish()
	if errors.Is(err, portmap.ErrShare) {
		if i.refused++; i.refused&(i.refused-1) == 0 { // ever more seldom
			m.opts.Logger.Warn("instance wants too many ports", "id", i.id, "name", i.name, "times", i.refused, "error", err)
		}
	}
	return ep.Port(), err
}

func request(b *wire.Bind) portmap.Request {
	return portmap.Request{
		Socket: portmap.Socket(b.Socket), Proto: table.Proto(b.Proto), Addr: b.Addr, Port: b.Port,
		Purpose: portmap.Purpose(b.Purpose), Options: portmap.SocketOptions{ReuseAddr: true, V6Only: b.V6Only},
	}
}

func (m *Monitor) release(i *instance, s portmap.Socket) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	err := m.ports.Close(i.id, s, 0)
	m.publish()
	return err
}
