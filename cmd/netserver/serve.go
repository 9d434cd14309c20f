package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"junction/direct"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/netserver"
	"junction/portmap/table"
)

// agent does what the monitor orders.
type agent struct {
	ctx    context.Context
	conn   *control.Conn
	in     wire.Receiver
	server *netserver.Server
	beats  heartbeat
	logger *slog.Logger
}

// serve connects to the monitor and forwards until the connection ends.
func serve(ctx context.Context, socket string, logger *slog.Logger) error {
	conn, err := control.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	hello := control.Hello{Version: wire.Version, PID: int32(os.Getpid()), Features: wire.RoleServer, Name: "netserver"}
	if _, err := conn.Handshake(ctx, hello); err != nil {
		return err
	}
	a := &agent{ctx: ctx, conn: conn, in: wire.Receiver{Conn: conn}, logger: logger}
	setup, view, err := a.receiveSetup()
	if err != nil {
		return err
	}
	defer view.Close()
	device, err := openUplink(ctx, setup, logger)
	if err != nil {
		return err
	}
	return a.run(device, view, setup)
}

// receiveSetup waits for the first order.
func (a *agent) receiveSetup() (setup wire.Setup, view *table.View, err error) {
	env, err := a.in.Receive(a.ctx)
	if err != nil {
		return setup, nil, err
	}
	defer env.Close()
	if err := wire.Decode(&env, wire.TypeSetup, &setup); err != nil {
		return setup, nil, err
	}
	if len(env.Files) != 1 {
		return setup, nil, fmt.Errorf("%w: set-up with %d descriptors", control.ErrProtocol, len(env.Files))
	}
	f := os.NewFile(uintptr(env.Files[0]), "portmap")
	env.Files = nil
	defer f.Close()
	view, err = table.OpenView(f)
	return setup, view, err
}

func openUplink(ctx context.Context, s wire.Setup, logger *slog.Logger) (direct.Device, error) {
	o := direct.Options{NIC: s.NIC, Driver: s.Driver, Queues: s.Queues, MTU: s.MTU, Logger: logger}
	if s.MAC != "" {
		var err error
		if o.MAC, err = net.ParseMAC(s.MAC); err != nil {
			return nil, err
		}
	}
	return direct.Open(ctx, o)
}

// run forwards until the monitor, the uplink or ctx ends.
func (a *agent) run(device direct.Device, view *table.View, setup wire.Setup) (err error) {
	a.server, err = netserver.New(netserver.Options{
		Uplink: device, View: view, Spin: setup.Spin, Logger: a.logger, Broken: a.broken,
	})
	if err != nil {
		return errors.Join(err, device.Close())
	}
	defer func() {
		a.server.Close()
		err = errors.Join(err, device.Close())
		a.server.Wait()
	}()
	ctx, stop := context.WithCancelCause(a.ctx)
	defer stop(nil)
	go func() {
		select {
		case err := <-a.server.Failed():
			stop(fmt.Errorf("uplink %s: %w", setup.NIC, err))
		case <-ctx.Done():
		}
	}()
	a.ctx = ctx
	ready := wire.Ready{
		Link:     wire.Link{MAC: device.MAC().String(), MTU: device.MTU(), GSOMax: device.Offloads().GSOMax},
		Mode:     device.Mode(),
		Offloads: device.Offloads(),
	}
	if err := wire.Send(ctx, a.conn, 0, wire.TypeReady, ready); err != nil {
		return err
	}
	err = a.obey()
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled), errors.Is(err, io.EOF):
		return nil // asked to end, or the monitor has
	case cause != nil:
		return cause
	}
	return err
}

// obey carries out orders until the connection ends.
func (a *agent) obey() error {
	for {
		env, err := a.in.Receive(a.ctx)
		if err != nil {
			return err
		}
		err = a.order(&env)
		env.Close()
		if err != nil {
			return err
		}
	}
}

func (a *agent) order(env *control.Envelope) error {
	switch env.Message.Type() {
	case wire.TypePing:
		return wire.Send(a.ctx, a.conn, env.ID, wire.TypePong, wire.Pong{Stuck: a.beats.stuck(a.server.Beats())})
	case wire.TypeAttach:
		var m wire.Attach
		if err := wire.Decode(env, wire.TypeAttach, &m); err != nil {
			return err
		}
		return a.attach(m)
	case wire.TypeDetach:
		var m wire.Detach
		if err := wire.Decode(env, wire.TypeDetach, &m); err != nil {
			return err
		}
		if err := a.server.Detach(m.ID); err != nil {
			a.logger.Warn("detach", "error", err) // it was never attached
		}
		return nil
	case wire.TypeAsk:
		var m wire.Ask
		if err := wire.Decode(env, wire.TypeAsk, &m); err != nil {
			return err
		}
		return a.answer(env.ID, m)
	}
	return fmt.Errorf("%w: type %d from the monitor", control.ErrProtocol, env.Message.Type())
}

// attach takes the rings, which follow, and serves the instance. What is wrong
// with one instance does not end the server.
func (a *agent) attach(m wire.Attach) error {
	env, err := a.in.Receive(a.ctx)
	if err != nil {
		return err
	}
	ends, err := client.AttachRings(&env, ipc.ServerSide)
	if err == nil {
		err = a.server.Attach(netserver.Port{ID: m.ID, Name: m.Name, Shared: m.Shared}, ends[0])
	}
	if errors.Is(err, control.ErrProtocol) {
		return err
	}
	if err != nil {
		a.broken(m.ID, err)
	}
	return nil
}

// broken tells the monitor about an instance that cannot be served.
func (a *agent) broken(id uint32, err error) {
	a.logger.Warn("instance cannot be served", "id", id, "error", err)
	go func() {
		_ = wire.Send(a.ctx, a.conn, 0, wire.TypeBroken, wire.Broken{ID: id, Reason: err.Error()})
	}()
}

func (a *agent) answer(id uint32, m wire.Ask) error {
	if m.Verb != "stats" {
		return a.conn.Send(a.ctx, id, &control.Error{Text: fmt.Sprintf("unknown request %q", m.Verb)})
	}
	b, err := json.Marshal(a.server.Stats())
	if err != nil {
		return err
	}
	return wire.Send(a.ctx, a.conn, id, wire.TypeAnswer, json.RawMessage(b))
}
