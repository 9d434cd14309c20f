package client

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
)

// rejoinTime is how long a monitor that calls has to take the instance back.
const rejoinTime = 10 * time.Second

// follow waits, whenever the monitor is gone, for the next one to call.
func (i *Instance) follow(ctx context.Context) {
	for {
		c, _ := i.current()
		select {
		case <-c.done:
		case <-ctx.Done():
			return
		}
		conn, err := i.escrow.Accept(ctx)
		if err != nil {
			return
		}
		if next := i.rejoin(ctx, conn); next != nil {
			next.listen()
			i.mu.Lock()
			i.conn = next
			close(i.changed)
			i.changed = make(chan struct{})
			i.mu.Unlock()
		}
	}
}

// rejoin tells a monitor that has called what the instance has; nil if it does
// not take it.
func (i *Instance) rejoin(ctx context.Context, conn *control.Conn) *caller {
	ctx, cancel := context.WithTimeout(ctx, rejoinTime)
	defer cancel()
	if err := i.tell(ctx, conn); err != nil {
		_ = conn.Close()
		return nil
	}
	c := newCaller(conn)
	c.obey, c.moves = i.obey, i.move
	return c
}

func (i *Instance) tell(ctx context.Context, conn *control.Conn) error {
	hello := control.Hello{Version: wire.Version, PID: int32(os.Getpid()), Features: wire.RoleInstance}
	if _, err := conn.Handshake(ctx, hello); err != nil {
		return err
	}
	i.unread.wait(ctx)
	i.mu.Lock()
	back := wire.Rejoin{ID: i.lease.ID, Holds: slices.Collect(maps.Values(i.holds)), Epoch: i.epoch, Direct: i.direct, Switching: i.switching}
	i.mu.Unlock()
	if err := wire.Send(ctx, conn, 1, wire.TypeRejoin, back); err != nil {
		return err
	}
	if err := conn.Send(ctx, 1, control.Rings{Side: ipc.ServerSide, Queues: 1}, i.server[:]...); err != nil {
		return err
	}
	r := wire.Receiver{Conn: conn}
	env, err := r.Receive(ctx)
	if err != nil {
		return err
	}
	defer env.Close()
	return wire.Decode(&env, wire.TypeJoined, &wire.Joined{})
}
