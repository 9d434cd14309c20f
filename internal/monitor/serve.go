package monitor

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// helloTime is how long a caller has to say who it is.
const helloTime = 5 * time.Second

// serve serves one connection until it ends.
func (m *Monitor) serve(ctx context.Context, c *control.Conn) {
	limited, cancel := context.WithTimeout(ctx, helloTime)
	hello, err := c.Handshake(limited, control.Hello{Version: wire.Version, PID: int32(unix.Getpid()), Name: "monitor"})
	cancel()
	if ended(err) {
		return // somebody wanted to know whether there is a monitor
	}
	if err != nil {
		m.offences.note(hello.Name, c.Peer(), err)
		m.opts.Logger.Warn("connection refused", "pid", c.Peer().PID, "error", err)
		return
	}
	if hello.Features != wire.RoleServer && !m.isOpen(ctx) {
		return
	}
	switch hello.Features {
	case wire.RoleInstance:
		err = m.serveInstance(ctx, c, hello.Name)
	case wire.RoleServer:
		err = m.server.serve(ctx, c)
	case wire.RoleOperator:
		err = m.serveOperator(ctx, c)
	default:
		err = refuse(ctx, c, 0, unix.EPROTO, "unknown role; use programs of one release")
	}
	if err != nil && !ended(err) {
		m.offences.note(hello.Name, c.Peer(), err)
		m.opts.Logger.Warn("connection ended", "pid", c.Peer().PID, "name", hello.Name, "error", err)
	}
}

// isOpen waits until everybody is served.
func (m *Monitor) isOpen(ctx context.Context) bool {
	select {
	case <-m.open:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// ended tells whether err is how a connection ends that has done nothing wrong.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE)
}

// refuse answers with an error.
func refuse(ctx context.Context, c *control.Conn, id uint32, errno unix.Errno, text string) error {
	return c.Send(ctx, id, &control.Error{Code: uint32(errno), Text: text})
}

// refuseErr answers with an error that wraps an errno, or that came with one.
func refuseErr(ctx context.Context, c *control.Conn, id uint32, err error) error {
	var told *control.Error
	if errors.As(err, &told) {
		return c.Send(ctx, id, told)
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.EINVAL
	}
	return refuse(ctx, c, id, errno, err.Error())
}
