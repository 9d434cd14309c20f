package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/portmap"
	"junction/portmap/table"
)

// Instance is an instance's lease. When it is closed, or its process ends, the
// monitor frees all that the instance had. When the monitor ends, its rings go
// on, and another monitor finds the instance again.
type Instance struct {
	lease  wire.Joined
	obey   Obey
	rings  []*ipc.End
	escrow *control.Listener
	server [ipc.FilesPerEnd]int // the server's side of the rings, for the next monitor
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu sync.Mutex
	// +checklocks:mu
	conn *caller // to the present monitor; over if there is none
	// +checklocks:mu
	changed chan struct{} // closed when conn is another
	// +checklocks:mu
	holds map[uint64]wire.Bind
	// +checklocks:mu
	next uint64
	// +checklocks:mu
	epoch uint64
	// +checklocks:mu
	direct, switching bool

	moves  chan Switch
	unread unread // of moves
}

// JoinInstance connects to the monitor at path and asks for a lease. obey carries out what
// operators order; nil: nothing. Errors: ErrNoMonitor, ctx's, *control.Error.
func JoinInstance(ctx context.Context, path, name string, join wire.Join, obey Obey) (*Instance, error) {
	c, err := dial(ctx, path, name, wire.RoleInstance)
	if err != nil {
		return nil, err
	}
	c.obey = obey
	i := &Instance{conn: c, obey: obey, changed: make(chan struct{}), holds: make(map[uint64]wire.Bind), moves: make(chan Switch, maxMoves)}
	c.moves = i.move
	if err := i.join(ctx, c.conn, join); err != nil {
		_ = c.conn.Close()
		i.free()
		return nil, fmt.Errorf("monitor at %s: join: %w", path, err)
	}
	c.listen()
	life, stop := context.WithCancel(context.Background())
	i.stop = stop
	i.ended.Go(func() { i.follow(life) })
	return i, nil
}

func (i *Instance) join(ctx context.Context, conn *control.Conn, join wire.Join) error {
	if err := wire.Send(ctx, conn, 1, wire.TypeJoin, join); err != nil {
		return err
	}
	r := wire.Receiver{Conn: conn}
	env, err := r.Receive(ctx)
	if err != nil {
		return err
	}
	defer env.Close()
	if err := wire.Decode(&env, wire.TypeJoined, &i.lease); err != nil {
		return err
	}
	rings, err := r.Receive(ctx)
	if err != nil {
		return err
	}
	if i.rings, err = AttachRings(&rings, ipc.InstanceSide); err != nil {
		return err
	}
	kept, err := r.Receive(ctx)
	if err != nil {
		return err
	}
	return i.keep(&kept)
}

// keep takes what is to be kept for the next monitor.
func (i *Instance) keep(env *control.Envelope) (err error) {
	if err := wire.Decode(env, wire.TypeEscrow, &wire.Escrow{}); err != nil {
		env.Close()
		return err
	}
	if len(env.Files) != 1+ipc.FilesPerEnd {
		env.Close()
		return fmt.Errorf("%w: escrow of %d descriptors", control.ErrProtocol, len(env.Files))
	}
	i.server = [ipc.FilesPerEnd]int(env.Files[1:])
	i.escrow, err = control.FromFile(env.Files[0])
	return err
}

// AttachRings attaches to the rings that a control.Rings brought, all or none. It
// takes the envelope's descriptors over.
func AttachRings(env *control.Envelope, side ipc.Side) ([]*ipc.End, error) {
	m, ok := env.Message.(control.Rings)
	if !ok || m.Side != side {
		env.Close()
		return nil, fmt.Errorf("%w: no rings for the %v side", control.ErrProtocol, side)
	}
	var ends []*ipc.End
	for n := 0; n < len(env.Files); n += ipc.FilesPerEnd {
		e, err := ipc.Attach(side, [ipc.FilesPerEnd]int(env.Files[n:]))
		if err != nil {
			for _, e := range ends {
				_ = e.Close()
			}
			env.Files = env.Files[n+ipc.FilesPerEnd:]
			env.Close()
			return nil, err
		}
		ends = append(ends, e)
	}
	env.Files = nil
	return ends, nil
}

// Lease returns what the monitor gave.
func (i *Instance) Lease() wire.Joined { return i.lease }

// Rings returns the instance's ends of its rings, one for each queue.
func (i *Instance) Rings() []*ipc.End { return i.rings }

// Follow calls changed, in turn, when the monitor is gone, or has cut the instance
// off, and when there is one again, until ctx is done, which has to be before Close.
func (i *Instance) Follow(ctx context.Context, changed func(there bool)) {
	for {
		c, next := i.current()
		select {
		case <-c.done:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		changed(false)
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
		changed(true)
	}
}

// current returns the connection, and what is closed when there is another.
func (i *Instance) current() (*caller, <-chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.conn, i.changed
}

// Bind asks for a port, 0 for any, and returns the holder's number and the
// port. Without a monitor it waits for the next, until ctx is done. The error
// wraps the unix.Errno that a program is to see.
func (i *Instance) Bind(ctx context.Context, proto table.Proto, a netip.Addr, port uint16, purpose portmap.Purpose, v6only bool) (portmap.Socket, uint16, error) {
	i.mu.Lock()
	i.next++
	b := wire.Bind{Socket: i.next, Proto: uint8(proto), Addr: a, Port: port, Purpose: uint8(purpose), V6Only: v6only}
	i.mu.Unlock()
	var bound wire.Bound
	err := i.persist(ctx, func(c *caller) error {
		err := c.call(ctx, wire.TypeBind, b, wire.TypeBound, &bound)
		if err == nil {
			b.Port, b.Purpose = bound.Port, uint8(portmap.ForBind)
			i.hold(b)
		}
		return err
	})
	if err != nil && ctx.Err() != nil {
		i.giveBack(b.Socket)
	}
	var refusal *control.Error
	if errors.As(err, &refusal) {
		err = fmt.Errorf("%s: %w", refusal.Text, unix.Errno(refusal.Code))
	}
	return portmap.Socket(b.Socket), bound.Port, err
}

// giveBack releases what the monitor may yet give: it takes messages in order. Nobody
// waits for the answer.
func (i *Instance) giveBack(socket uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, _ := i.current()
	_ = c.tell(ctx, wire.TypeClose, wire.Close{Socket: socket}) // the next monitor is told what is held
}

// persist calls f with the present monitor, and again with the next one if that
// ends meanwhile.
func (i *Instance) persist(ctx context.Context, f func(*caller) error) error {
	for {
		c, changed := i.current()
		err := f(c)
		if !errors.Is(err, ErrLost) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// hold notes what the monitor gave, for its successor.
func (i *Instance) hold(b wire.Bind) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.holds[b.Socket] = b
}

// Release gives back what Bind returned. Without a monitor, the next one is
// not told of it any more.
func (i *Instance) Release(ctx context.Context, s portmap.Socket) error {
	i.mu.Lock()
	delete(i.holds, uint64(s))
	c := i.conn
	i.mu.Unlock()
	err := c.call(ctx, wire.TypeClose, wire.Close{Socket: uint64(s)}, wire.TypeClosed, &wire.Closed{})
	if errors.Is(err, ErrLost) {
		return nil
	}
	return err
}

// Close gives the lease up.
func (i *Instance) Close() {
	i.stop()
	c, _ := i.current()
	c.close()
	i.ended.Wait()
	i.free()
}

func (i *Instance) free() {
	for len(i.moves) > 0 { // nobody else takes any more
		s := <-i.moves
		s.Close()
	}
	for _, e := range i.rings {
		_ = e.Close()
	}
	if i.escrow != nil {
		_ = i.escrow.Close()
		for _, fd := range i.server {
			_ = unix.Close(fd)
		}
	}
}
