package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/portmap"
)

// errNoServer: there is no network server to ask right now.
var errNoServer = errors.New("the network server is not running; try again, or see the monitor's log")

// session is the conversation with one network server.
type session struct {
	conn *control.Conn
	over chan struct{} // closed when it is not the current session any more

	settled chan struct{} // closed when the server has taken all that there was from the beginning
	settle  sync.Once

	mu sync.Mutex
	// +checklocks:mu
	queue []order
	// +checklocks:mu
	ended bool
	// +checklocks:mu
	alive time.Time

	asked pending

	more chan struct{} // of capacity 1: the queue is not empty
}

// order is something to send. Its files are the order's own.
type order struct {
	kind  uint16
	id    uint32
	value any
	rings []int
	files []int // beside the message itself
}

// serve talks with a network server until the connection ends.
func (s *supervisor) serve(ctx context.Context, c *control.Conn) error {
	if !s.isServer(c.Peer().PID) {
		return refuse(ctx, c, 0, unix.EPERM, fmt.Sprintf("process %d is not the network server that the monitor started", c.Peer().PID))
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	x := &session{conn: c, more: make(chan struct{}, 1), alive: time.Now(), over: make(chan struct{}), settled: make(chan struct{})}
	ready, had, err := s.introduce(ctx, x)
	if err != nil {
		return err
	}
	s.m.opts.Logger.Info("network server ready", "pid", c.Peer().PID, "nic", ready.Mode.NIC, "driver", ready.Mode.Driver, "attach", ready.Mode.Attach)
	s.m.adopt(x, ready, had)
	defer x.end()
	defer s.lost(x)
	var senders sync.WaitGroup
	defer senders.Wait()
	defer stop()
	senders.Go(func() { x.send(ctx) })
	senders.Go(func() { s.watch(ctx, x) })
	senders.Go(func() { s.provide(ctx, x) })
	return s.receive(ctx, x)
}

// introduce hears what a server has, tells it what to do and waits until it is
// ready.
func (s *supervisor) introduce(ctx context.Context, x *session) (ready wire.Ready, had []uint32, err error) {
	r := wire.Receiver{Conn: x.conn}
	back, err := s.hearBack(ctx, &r)
	if err != nil {
		return ready, nil, err
	}
	if err := s.awaitTurn(ctx, x.conn.Peer().PID); err != nil {
		return ready, nil, err
	}
	view, err := s.m.view(ctx)
	if err != nil {
		return ready, nil, err
	}
	defer view.Close()
	setup, files := s.m.opts.Uplink, []int{int(view.Fd())}
	if back.Adopts && !back.Running {
		var queues []int
		if setup.Uplink, queues, err = s.m.uplink.forServer(ctx); err != nil {
			return ready, nil, errors.Join(err, refuseErr(ctx, x.conn, 0, err))
		}
		defer closeAll(queues)
		files = append(files, queues...)
	}
	if err := wire.Send(ctx, x.conn, 0, wire.TypeSetup, setup, files...); err != nil {
		return ready, nil, err
	}
	env, err := r.Receive(ctx)
	if err != nil {
		return ready, nil, err
	}
	defer env.Close()
	return ready, back.Attached, wire.Decode(&env, wire.TypeReady, &ready)
}

// hearBack hears what a server has from an earlier monitor.
func (s *supervisor) hearBack(ctx context.Context, r *wire.Receiver) (back wire.Back, err error) {
	env, err := r.Receive(ctx)
	if err != nil {
		return back, err
	}
	defer env.Close()
	if err := wire.Decode(&env, wire.TypeBack, &back); err != nil {
		return back, err
	}
	if len(env.Files) > 0 {
		s.bring(back.Uplink, env.Files)
		env.Files = nil
	}
	return back, nil
}

// view opens the table for reading when all is in it: with a part of the ports
// alone, a server would refuse what is for the others.
func (m *Monitor) view(ctx context.Context) (*os.File, error) {
	select {
	case <-m.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.table.ViewFile()
}

// adopt makes x the current session and hands it all instances. Of those that
// it had, it drops those that are no more; it keeps those that may come back.
func (m *Monitor) adopt(x *session, ready wire.Ready, had []uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.server.found(x, ready)
	for _, id := range had {
		if m.instances[portmap.Instance(id)] == nil && !m.awaited(portmap.Instance(id)) {
			m.server.detach(portmap.Instance(id))
		}
	}
	for _, i := range m.instances {
		m.server.attach(i)
	}
	x.order(order{kind: wire.TypeBegin, value: wire.Begin{}})
	x.order(order{kind: wire.TypePing, id: settling, value: wire.Ping{}})
}

// settling is the number of the ping that follows the orders of the beginning.
const settling = 1

// awaited tells whether an instance may still come back.
//
// +checklocks:m.mu
func (m *Monitor) awaited(id portmap.Instance) bool {
	_, ok := m.awaiting[id]
	return ok
}

// attach has the current server, if there is one, serve an instance.
//
// +checklocks:s.m.mu
func (s *supervisor) attach(i *instance) {
	x := s.current()
	if x == nil {
		return // the next one gets all
	}
	rings, err := duplicateRings(i.rings)
	if err != nil {
		s.m.opts.Logger.Error("instance not attached", "id", i.id, "error", err)
		return
	}
	attach := wire.Attach{ID: uint32(i.id), Name: i.name, Shared: i.mask, Rate: i.rate, Weight: i.weight}
	o := order{kind: wire.TypeAttach, value: attach, rings: rings[:]}
	x.order(o)
}

func (s *supervisor) detach(id portmap.Instance) {
	if x := s.current(); x != nil {
		x.order(order{kind: wire.TypeDetach, value: wire.Detach{ID: uint32(id)}})
	}
}

// order queues something to be sent. It never blocks.
func (x *session) order(o order) {
	x.mu.Lock()
	over := x.ended
	if !over {
		x.queue = append(x.queue, o)
	}
	x.mu.Unlock()
	if over {
		o.drop()
		return
	}
	select {
	case x.more <- struct{}{}:
	default:
	}
}

// send sends the queue's orders.
func (x *session) send(ctx context.Context) {
	for {
		select {
		case <-x.more:
		case <-ctx.Done():
			return
		}
		x.mu.Lock()
		orders := x.queue
		x.queue = nil
		x.mu.Unlock()
		for i, o := range orders {
			err := x.sendOrder(ctx, o)
			o.drop()
			if err != nil {
				for _, o := range orders[i+1:] {
					o.drop()
				}
				return // receive finds out
			}
		}
	}
}

func (x *session) sendOrder(ctx context.Context, o order) error {
	if err := wire.Send(ctx, x.conn, o.id, o.kind, o.value, o.files...); err != nil {
		return err
	}
	if o.rings == nil {
		return nil
	}
	return x.conn.Send(ctx, o.id, control.Rings{Side: ipc.ServerSide, Queues: 1}, o.rings...)
}

// watch kills the server when it gives no sign of life.
func (s *supervisor) watch(ctx context.Context, x *session) {
	const pings = 5 // in the time that it has
	interval := s.m.opts.HangAfter / pings
	t := time.NewTicker(interval)
	defer t.Stop()
	x.pong(wire.Pong{}) // being ready is a sign of life
	for last := time.Now(); ; {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		silent := x.silent(now, now.Sub(last)-interval)
		last = now
		if silent > patience*s.m.opts.HangAfter || silent > s.m.opts.HangAfter && !runnable(int(x.conn.Peer().PID)) {
			s.mu.Lock()
			s.history.Hangs++
			s.mu.Unlock()
			s.kill(fmt.Sprintf("no sign of life for %v", silent))
			return
		}
		x.order(order{kind: wire.TypePing, value: wire.Ping{}})
	}
}

// silent returns how long the server has given no sign of life while the
// monitor could have heard it: not in the time by which the monitor itself was
// late for its own check, as on a machine with too much to do.
func (x *session) silent(now time.Time, late time.Duration) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	if late > 0 {
		x.alive = x.alive.Add(late)
	}
	return now.Sub(x.alive)
}

// receive takes what the server says.
func (s *supervisor) receive(ctx context.Context, x *session) error {
	r := wire.Receiver{Conn: x.conn}
	for {
		env, err := r.Receive(ctx)
		if err != nil {
			return err
		}
		if err := s.heard(x, &env); err != nil {
			return err
		}
	}
}

func (s *supervisor) heard(x *session, env *control.Envelope) error {
	defer env.Close()
	switch env.Message.Type() {
	case wire.TypePong:
		var p wire.Pong
		if err := wire.Decode(env, wire.TypePong, &p); err != nil {
			return err
		}
		x.pong(p)
		if env.ID == settling {
			x.settle.Do(func() { close(x.settled) })
		}
		return nil
	case wire.TypeBroken:
		var b wire.Broken
		if err := wire.Decode(env, wire.TypeBroken, &b); err != nil {
			return err
		}
		s.m.cutOff(&b)
		return nil
	case control.TypeError, wire.TypeAnswer:
		return x.asked.take(env)
	}
	return fmt.Errorf("%w: type %d from the network server", control.ErrProtocol, env.Message.Type())
}

func (x *session) pong(p wire.Pong) {
	x.mu.Lock()
	defer x.mu.Unlock()
	// A worker that is stuck is as good as no sign of life since then.
	if at := time.Now().Add(-p.Stuck); at.After(x.alive) {
		x.alive = at
	}
}

// drop closes an order's files.
func (o *order) drop() {
	closeAll(o.rings)
	closeAll(o.files)
}

// ask asks the server and waits for the answer. It takes files over.
func (x *session) ask(ctx context.Context, a wire.Ask, files ...int) (wire.Answer, error) {
	id, answer, ok := x.asked.begin()
	if !ok {
		closeAll(files)
		return nil, errNoServer
	}
	x.order(order{kind: wire.TypeAsk, id: id, value: a, files: files})
	return x.asked.await(ctx, id, answer, errNoServer)
}

// end tells all who wait that no answer will come.
func (x *session) end() {
	x.asked.end()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, o := range x.queue {
		o.drop()
	}
	x.queue, x.ended = nil, true
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
