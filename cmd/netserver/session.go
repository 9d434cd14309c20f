package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/netserver"
)

// session is the conversation with one monitor.
type session struct {
	*agent
	ctx  context.Context
	conn *control.Conn
	in   wire.Receiver
}

// begin says what there is from an earlier monitor, takes the set-up, and says
// when the uplink is open.
func (s *session) begin() error {
	back, files := wire.Back{Adopts: true}, []int(nil)
	if s.server != nil {
		back.Running, back.Attached, back.Uplink = true, s.server.Attached(), s.uplink
		files = append([]int{int(s.viewFile.Fd())}, s.kept...)
	}
	if err := wire.Send(s.ctx, s.conn, 0, wire.TypeBack, back, files...); err != nil {
		return err
	}
	setup, err := s.receiveSetup()
	if err != nil {
		return err
	}
	if s.server != nil {
		s.server.SetView(s.views[len(s.views)-1])
	} else if err := s.open(s.ctx, setup); err != nil {
		return err
	}
	d := s.device
	return wire.Send(s.ctx, s.conn, 0, wire.TypeReady, wire.Ready{
		Link:     wire.Link{MAC: d.MAC().String(), MTU: d.MTU(), GSOMax: netserver.GSOMax},
		Mode:     d.Mode(),
		Offloads: d.Offloads(),
	})
}

// receiveSetup waits for the first order.
func (s *session) receiveSetup() (setup wire.Setup, err error) {
	env, err := s.in.Receive(s.ctx)
	if err != nil {
		return setup, err
	}
	defer env.Close()
	if err := wire.Decode(&env, wire.TypeSetup, &setup); err != nil {
		return setup, err
	}
	if n := len(env.Files); n == 0 || n > 1 && (setup.Uplink == nil || s.server != nil) {
		return setup, fmt.Errorf("%w: set-up with %d descriptors", control.ErrProtocol, n)
	}
	f := os.NewFile(uintptr(env.Files[0]), "portmap")
	if s.server == nil {
		s.kept = env.Files[1:]
	}
	env.Files = nil
	return setup, s.takeView(f)
}

// obey carries out orders until the connection ends.
func (s *session) obey() error {
	for {
		env, err := s.in.Receive(s.ctx)
		if err != nil {
			return err
		}
		err = s.order(&env)
		env.Close()
		if err != nil {
			return err
		}
	}
}

func (s *session) order(env *control.Envelope) error {
	switch env.Message.Type() {
	case wire.TypePing:
		return wire.Send(s.ctx, s.conn, env.ID, wire.TypePong, wire.Pong{Stuck: s.beats.stuck(s.server.Beats())})
	case wire.TypeBegin:
		s.agent.begin.Do(func() { close(s.begun) })
		return nil
	case wire.TypeAttach:
		var m wire.Attach
		if err := wire.Decode(env, wire.TypeAttach, &m); err != nil {
			return err
		}
		return s.attach(m)
	case wire.TypeDetach:
		var m wire.Detach
		if err := wire.Decode(env, wire.TypeDetach, &m); err != nil {
			return err
		}
		if err := s.server.Detach(m.ID); err != nil {
			s.logger.Warn("detach", "error", err) // it was never attached
		}
		return nil
	case wire.TypeAsk:
		var m wire.Ask
		if err := wire.Decode(env, wire.TypeAsk, &m); err != nil {
			return err
		}
		return s.answer(env, m)
	}
	return fmt.Errorf("%w: type %d from the monitor", control.ErrProtocol, env.Message.Type())
}

// attach takes the rings, which follow, and serves the instance, unless it does
// so since an earlier monitor. What is wrong with one instance does not end the
// server.
func (s *session) attach(m wire.Attach) error {
	env, err := s.in.Receive(s.ctx)
	if err != nil {
		return err
	}
	if slices.Contains(s.server.Attached(), m.ID) {
		env.Close()
		return nil
	}
	ends, err := client.AttachRings(&env, ipc.ServerSide)
	if err == nil {
		err = s.server.Attach(netserver.Port{ID: m.ID, Name: m.Name, Shared: m.Shared, Rate: m.Rate, Weight: m.Weight}, ends[0])
	}
	if errors.Is(err, control.ErrProtocol) {
		return err
	}
	if err != nil {
		s.broken(m.ID, err)
	}
	return nil
}

// broken tells the monitor about an instance that cannot be served.
func (s *session) broken(id uint32, err error) {
	s.logger.Warn("instance cannot be served", "id", id, "error", err)
	breach := "bad_rings"
	var bad *ipc.PeerError
	if errors.As(err, &bad) {
		breach = bad.Breach.String()
	}
	go func() {
		_ = wire.Send(s.ctx, s.conn, 0, wire.TypeBroken, wire.Broken{ID: id, Breach: breach, Reason: err.Error()})
	}()
}

func (s *session) answer(env *control.Envelope, m wire.Ask) error {
	id := env.ID
	switch m.Verb {
	case "stats":
		b, err := json.Marshal(s.server.Stats())
		if err != nil {
			return err
		}
		return wire.Send(s.ctx, s.conn, id, wire.TypeAnswer, json.RawMessage(b))
	case "limit":
		var l wire.Limit
		if err := json.Unmarshal(m.Args, &l); err != nil {
			return fmt.Errorf("%w: limit: %w", control.ErrProtocol, err)
		}
		if err := s.server.Limit(l.ID, l.Rate, l.Weight); err != nil {
			s.logger.Warn("limit", "error", err) // it has just left
		}
		return wire.Send(s.ctx, s.conn, id, wire.TypeAnswer, struct{}{})
	case "mark":
		return s.mark(id, m)
	}
	follow := map[string]func(*control.Envelope, wire.Ask) error{"capture": s.capture, "trace": s.trace}[m.Verb]
	if follow == nil {
		return s.conn.Send(s.ctx, id, &control.Error{Text: fmt.Sprintf("unknown request %q", m.Verb)})
	}
	if err := follow(env, m); err != nil {
		return s.conn.Send(s.ctx, id, &control.Error{Code: uint32(unix.EINVAL), Text: err.Error()})
	}
	return wire.Send(s.ctx, s.conn, id, wire.TypeAnswer, struct{}{})
}

// markTime is how long a mark may take.
const markTime = 5 * time.Second

// mark answers when the mark is in the ring, without holding up other orders.
func (s *session) mark(id uint32, ask wire.Ask) error {
	var m wire.Mark
	if err := json.Unmarshal(ask.Args, &m); err != nil {
		return fmt.Errorf("%w: mark: %w", control.ErrProtocol, err)
	}
	go func() {
		ctx, cancel := context.WithTimeout(s.ctx, markTime)
		defer cancel()
		// Failures to answer show where orders are received.
		if err := s.server.Mark(ctx, m.ID, m.Frame); err != nil {
			_ = s.conn.Send(s.ctx, id, &control.Error{Code: uint32(unix.EINVAL), Text: err.Error()})
			return
		}
		_ = wire.Send(s.ctx, s.conn, id, wire.TypeAnswer, struct{}{})
	}()
	return nil
}

// capture begins to write frames to the file that came with the request.
func (s *session) capture(env *control.Envelope, m wire.Ask) error {
	var c wire.Capture
	f, err := takeOutput(env, m, &c)
	if err != nil {
		return err
	}
	return s.server.Capture(c.ID, f)
}

// trace begins to write what becomes of frames to the file that came with the
// request.
func (s *session) trace(env *control.Envelope, m wire.Ask) error {
	var t wire.Trace
	f, err := takeOutput(env, m, &t)
	if err != nil {
		return err
	}
	return s.server.Trace(t.Frames, f)
}

// takeOutput decodes a request's arguments and takes the file that it is to be
// written to.
func takeOutput(env *control.Envelope, m wire.Ask, args any) (*os.File, error) {
	if err := json.Unmarshal(m.Args, args); err != nil {
		return nil, err
	}
	if len(env.Files) != 1 {
		return nil, fmt.Errorf("%s: %d files to write to, not one", m.Verb, len(env.Files))
	}
	// Non-blocking, so that a reader that does not read holds up nothing.
	if err := unix.SetNonblock(env.Files[0], true); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(env.Files[0]), m.Verb)
	env.Files = nil
	return f, nil
}
