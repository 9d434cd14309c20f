// Package client is the monitor's protocol from the other side: for instances,
// which join and bind ports, and for operators.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// ErrNoMonitor is returned, wrapped, when nothing answers at the socket.
var ErrNoMonitor = errors.New("no monitor answers")

// ErrLost is returned, wrapped, when the connection to the monitor has ended.
var ErrLost = errors.New("the monitor is gone")

// caller asks and waits for answers, for any number of goroutines.
type caller struct {
	conn  *control.Conn
	stop  context.CancelFunc
	done  chan struct{}           // closed when nothing more is received
	obey  Obey                    // nil: nobody gives orders here
	moves func(*control.Envelope) // takes messages about the mode; nil: there is none to switch here
	tasks sync.WaitGroup

	mu sync.Mutex
	// +checklocks:mu
	next uint32
	// +checklocks:mu
	waiting map[uint32]chan control.Envelope // nil when the connection has ended
}

// dial connects to the monitor at path and introduces the caller.
func dial(ctx context.Context, path, name string, role uint64) (*caller, error) {
	conn, err := control.Dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMonitor, err)
	}
	if _, err := conn.Handshake(ctx, control.Hello{Version: wire.Version, PID: int32(os.Getpid()), Features: role, Name: name}); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("monitor at %s: %w", path, err)
	}
	return newCaller(conn), nil
}

func newCaller(conn *control.Conn) *caller {
	return &caller{conn: conn, done: make(chan struct{}), waiting: make(map[uint32]chan control.Envelope)}
}

// listen begins to receive. Until then the connection is the caller's own.
func (c *caller) listen() {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.receive(ctx)
}

func (c *caller) receive(ctx context.Context) {
	defer close(c.done)
	r := wire.Receiver{Conn: c.conn}
	for {
		env, err := r.Receive(ctx)
		if err != nil {
			break
		}
		if env.Message.Type() == wire.TypeAsk && c.obey != nil {
			c.tasks.Go(func() { c.carryOut(ctx, &env) })
			continue
		}
		if env.Message.Type() == wire.TypeSwitch && c.moves != nil {
			c.moves(&env)
			continue
		}
		c.mu.Lock()
		ch := c.waiting[env.ID]
		delete(c.waiting, env.ID)
		c.mu.Unlock()
		if ch == nil {
			env.Close() // nobody asked, or nobody waits any more
			continue
		}
		ch <- env
	}
	_ = c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.waiting {
		close(ch)
	}
	c.waiting = nil
}

// call sends a request, with files beside it, and decodes its answer into v.
func (c *caller) call(ctx context.Context, kind uint16, request any, answer uint16, v any, files ...int) error {
	ch := make(chan control.Envelope, 1)
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return ErrLost
	}
	c.next++
	id := c.next
	c.waiting[id] = ch
	c.mu.Unlock()
	if err := wire.Send(ctx, c.conn, id, kind, request, files...); err != nil {
		c.forget(id)
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	select {
	case env, ok := <-ch:
		if !ok {
			return fmt.Errorf("%w: %w", ErrLost, io.ErrUnexpectedEOF)
		}
		defer env.Close()
		return wire.Decode(&env, answer, v)
	case <-ctx.Done():
		c.forget(id)
		return ctx.Err()
	}
}

// tell sends a request whose answer nobody waits for.
func (c *caller) tell(ctx context.Context, kind uint16, request any) error {
	c.mu.Lock()
	c.next++
	id := c.next
	c.mu.Unlock()
	return wire.Send(ctx, c.conn, id, kind, request)
}

func (c *caller) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *caller) close() {
	_ = c.conn.Close()
	if c.stop != nil {
		c.stop()
		<-c.done
		c.tasks.Wait()
	}
}
