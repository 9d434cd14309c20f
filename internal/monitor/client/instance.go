package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/portmap"
	"junction/portmap/table"
)

// Instance is an instance's lease. When it is closed, or its process ends, the
// monitor frees all that the instance had.
type Instance struct {
	*caller
	lease  wire.Joined
	rings  []*ipc.End
	socket atomic.Uint64
}

// JoinInstance connects to the monitor at path and asks for a lease: for the
// dedicated addresses addrs, or for the shared ones. Errors: ErrNoMonitor,
// ctx's, *control.Error.
func JoinInstance(ctx context.Context, path, name string, addrs []netip.Addr) (*Instance, error) {
	c, err := dial(ctx, path, name, wire.RoleInstance)
	if err != nil {
		return nil, err
	}
	i := &Instance{caller: c}
	if err := i.join(ctx, addrs); err != nil {
		i.Close()
		return nil, fmt.Errorf("monitor at %s: join: %w", path, err)
	}
	c.listen()
	return i, nil
}

func (i *Instance) join(ctx context.Context, addrs []netip.Addr) error {
	if err := wire.Send(ctx, i.conn, 1, wire.TypeJoin, wire.Join{Addrs: addrs}); err != nil {
		return err
	}
	r := wire.Receiver{Conn: i.conn}
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
	i.rings, err = AttachRings(&rings, ipc.InstanceSide)
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

// Gone is closed when the monitor is gone.
func (i *Instance) Gone() <-chan struct{} { return i.done }

// Bind asks for a port, 0 for any, and returns the holder's number and the
// port. The error wraps the unix.Errno that a program is to see.
func (i *Instance) Bind(ctx context.Context, proto table.Proto, a netip.Addr, port uint16, purpose portmap.Purpose, v6only bool) (portmap.Socket, uint16, error) {
	id := i.socket.Add(1)
	var bound wire.Bound
	err := i.call(ctx, wire.TypeBind, wire.Bind{
		Socket: id, Proto: uint8(proto), Addr: a, Port: port, Purpose: uint8(purpose), V6Only: v6only,
	}, wire.TypeBound, &bound)
	var refusal *control.Error
	if errors.As(err, &refusal) {
		err = fmt.Errorf("%s: %w", refusal.Text, unix.Errno(refusal.Code))
	}
	return portmap.Socket(id), bound.Port, err
}

// Release gives back what Bind returned.
func (i *Instance) Release(ctx context.Context, s portmap.Socket) error {
	return i.call(ctx, wire.TypeClose, wire.Close{Socket: uint64(s)}, wire.TypeClosed, &wire.Closed{})
}

// Close gives the lease up.
func (i *Instance) Close() {
	for _, e := range i.rings {
		_ = e.Close()
	}
	i.close()
}
