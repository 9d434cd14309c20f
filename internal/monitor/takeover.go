package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/portmap"
	"junction/portmap/table"
)

// A monitor that finds its predecessor's state takes over: the network server,
// which went on, connects again and brings its view of the portmap; then the
// instances are called, all at once. Until all of them have come back or are known
// to be gone, or some time has passed, nobody else is served; what an instance had that
// is late is kept for it.

const (
	// backTime is how long the predecessor's server has to connect.
	backTime = 3 * time.Second
	// callTime is how long an instance has to come back, and others wait for it, if
	// only it knows what it had. If the portmap does, others wait for graceTime, and
	// it has lateTime: it may be stopped.
	callTime  = 5 * time.Second
	graceTime = time.Second
	lateTime  = time.Minute
)

// begin makes the portmap, from a predecessor's view if there is one, and the
// table in all its forms; b is what came with the view.
func (m *Monitor) begin(ctx context.Context, view *table.View, b *brought) error {
	po, err := m.opts.portmapOptions()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if view != nil {
		m.ports, err = portmap.Restore(po, view.Snapshot())
		if m.restored = err == nil; err != nil {
			m.opts.Logger.Warn("ports of the monitor before are lost", "error", err)
		}
	}
	if m.ports == nil {
		if m.ports, err = portmap.New(po); err != nil {
			return fmt.Errorf("%w: %w", ErrOptions, err)
		}
	}
	if m.table, err = table.NewWriter(m.ports.Geometry(), m.uplink.begin(ctx, m.ports.Geometry(), b)); err != nil {
		return err
	}
	if view != nil {
		m.copyTable(view.Snapshot())
	}
	m.publish()
	return nil
}

// copyTable writes to the table what the portmap was restored from.
//
// +checklocks:m.mu
func (m *Monitor) copyTable(s table.Snapshot) {
	if s.Geometry != m.ports.Geometry() {
		return // not restored
	}
	var all []table.Change
	for i, slot := range s.Slots {
		if slot.Word != 0 {
			all = append(all, table.Change{Index: uint32(i), Slot: true, Key: slot.Key, Word: slot.Word})
		}
	}
	for i, w := range s.Ports {
		if w != 0 {
			all = append(all, table.Change{Index: uint32(i), Word: w})
		}
	}
	m.table.Apply(all)
}

// takeOver continues what a predecessor left.
func (m *Monitor) takeOver(ctx context.Context, s state) error {
	m.opts.Logger.Info("taking over from a monitor that died", "instances", len(s.Instances), "netserver", s.Server.PID)
	m.mu.Lock()
	m.last = portmap.Instance(s.Last)
	m.mu.Unlock()
	m.auto.resume(s.Auto)
	m.uplink.before.Store(s.Channels)
	view, b := m.awaitView(ctx)
	err := m.begin(ctx, view, b)
	if view != nil {
		b.close()
		err = errors.Join(err, view.Close())
	}
	if err != nil {
		return err
	}
	call, limit := m.await(s.Instances)
	answered := make(chan struct{}, len(s.Instances))
	for _, r := range s.Instances {
		m.resumed.Go(func() { m.resume(ctx, r, call, answered) })
	}
	late := time.After(limit)
	for range s.Instances {
		select {
		case <-answered:
			continue
		case <-late:
		}
		break
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.ports.Absent() {
		if !m.awaited(id) {
			m.ports.Leave(id)
			m.server.detach(id)
		}
	}
	m.publish()
	m.uplink.orphans(func(id portmap.Instance) bool { return m.instances[id] != nil || m.awaited(id) })
	return nil
}

// await notes that instances may come back, and returns how long they have, and for
// how long others wait for them.
func (m *Monitor) await(all []record) (call, limit time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.awaiting = make(map[portmap.Instance]record, len(all))
	for _, r := range all {
		m.awaiting[portmap.Instance(r.ID)] = r
	}
	if m.restored {
		return lateTime, graceTime
	}
	return callTime, callTime
}

// lapse frees what an instance had that does not come back.
func (m *Monitor) lapse(id portmap.Instance) {
	defer m.uplink.left(id) // takes its time
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.awaiting, id)
	m.ports.Leave(id)
	m.publish()
	m.server.detach(id)
	_ = os.Remove(m.opts.escrowPath(id))
	m.save()
}

// awaitView waits for the view that the predecessor's server brings, with what
// else it has kept; nil if it does not come.
func (m *Monitor) awaitView(ctx context.Context) (*table.View, *brought) {
	select {
	case b := <-m.server.views:
		v, err := table.OpenView(b.view)
		if err != nil {
			m.opts.Logger.Warn("the network server's view is unusable", "error", err)
			b.close()
			return nil, nil
		}
		return v, b
	case <-m.server.adoptedEnded:
	case <-time.After(backTime):
	case <-ctx.Done():
	}
	m.opts.Logger.Warn("the network server did not come back: ports are as instances say")
	return nil, nil
}

// resume calls an instance and serves it. It tells answered when it is known
// whether it has come back.
func (m *Monitor) resume(ctx context.Context, r record, within time.Duration, answered chan<- struct{}) {
	i := &instance{id: portmap.Instance(r.ID), name: r.Name, peer: r.Peer, shared: r.Shared, prefixes: r.Prefixes, mask: r.Mask, rate: r.Rate, weight: r.Weight, priority: r.Priority, since: r.Since, wasPinned: r.Pinned}
	in, err := m.callBack(ctx, i, within)
	if err == nil {
		i.sw.resume(&i.back)
	} else {
		m.lapse(i.id)
	}
	answered <- struct{}{}
	if err != nil {
		m.offences.note(r.Name, r.Peer, err)
		m.opts.Logger.Warn("instance did not come back", "id", r.ID, "name", r.Name, "error", err)
		return
	}
	defer i.conn.Close()
	defer m.leave(i)
	m.resumed.Go(func() { m.rejoinEnclave(ctx, i) })
	m.opts.Logger.Info("instance came back", "id", i.id, "name", i.name, "pid", i.peer.PID)
	if err := m.serveRequests(ctx, i, in); !ended(err) {
		m.offences.note(i.name, i.peer, err)
		m.opts.Logger.Warn("connection ended", "pid", i.peer.PID, "name", i.name, "error", err)
	}
}

// callBack connects to where an instance listens, and gives it back what it had.
func (m *Monitor) callBack(ctx context.Context, i *instance, within time.Duration) (in *wire.Receiver, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	conn, err := control.Dial(ctx, m.opts.escrowPath(i.id))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	i.conn, in = conn, &wire.Receiver{Conn: conn}
	if _, err := conn.Handshake(ctx, control.Hello{Version: wire.Version, PID: int32(os.Getpid()), Name: "monitor"}); err != nil {
		return nil, err
	}
	env, err := in.Receive(ctx)
	if err != nil {
		return nil, err
	}
	var back wire.Rejoin
	if err := wire.Decode(&env, wire.TypeRejoin, &back); err != nil {
		return nil, err
	}
	if portmap.Instance(back.ID) != i.id {
		return nil, fmt.Errorf("%w: instance %d says it is %d", control.ErrProtocol, i.id, back.ID)
	}
	rings, err := in.Receive(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := rings.Message.(control.Rings); !ok || len(rings.Files) != ipc.FilesPerEnd {
		rings.Close()
		return nil, fmt.Errorf("%w: no rings", control.ErrProtocol)
	}
	i.rings = [ipc.FilesPerEnd]int(rings.Files)
	i.sw, i.back = newSwitcher(m, i), back
	i.sw.returning = true // nobody else has it yet
	i.sw.pinned.Store(i.wasPinned)
	if err := m.rejoin(i, back.Holds); err != nil {
		closeAll(i.rings[:])
		return nil, err
	}
	err = wire.Send(ctx, conn, env.ID, wire.TypeJoined, wire.Joined{ID: uint32(i.id), Shared: i.shared, Prefixes: i.prefixes})
	if err != nil {
		m.leave(i)
	}
	return in, err
}

// rejoin gives an instance its ports again, as far as they are still its own.
func (m *Monitor) rejoin(i *instance, holds []wire.Bind) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	defer m.publish()
	l := m.lease(i)
	l.Returning = !m.restored // else the portmap knows what it had
	if err := m.ports.Join(i.id, l); err != nil {
		return err
	}
	for _, b := range holds {
		if _, err := m.ports.Bind(i.id, request(&b)); err != nil {
			m.ports.Leave(i.id)
			return fmt.Errorf("port %d is not its own any more: %w", b.Port, err)
		}
	}
	if err := m.ports.Settle(i.id); err != nil {
		return err
	}
	delete(m.awaiting, i.id)
	m.instances[i.id] = i
	m.server.attach(i)
	m.save()
	return nil
}

// watchAdopted waits for the end of a network server that another monitor
// started, of which the kernel tells through its pidfd. It returns false at once
// if it does not run any more.
func watchAdopted(ctx context.Context, p process) bool {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if startOf(p.PID) != p.Start {
		return false // another process by now
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = conn.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return true
}
