package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/steer"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/netserver"
	"junction/portmap/table"
)

// agent does what the monitor orders, and goes on without one.
type agent struct {
	socket string
	logger *slog.Logger
	beats  heartbeat

	// From the first monitor on:
	device direct.Device
	server *netserver.Server
	failed context.CancelCauseFunc
	begun  chan struct{} // closed when all instances are attached
	begin  sync.Once

	uplink   *direct.Export // what the first monitor made; nil: we opened the NIC
	kept     []int          // the files that came with it, for the next monitor
	viewFile *os.File       // of the present monitor
	views    []*table.View
	present  atomic.Pointer[session]
}

// serve connects to the monitor and forwards until ctx ends or the uplink
// fails. When a monitor is gone it waits for the next.
func serve(ctx context.Context, socket string, logger *slog.Logger) (err error) {
	ctx, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	a := &agent{socket: socket, logger: logger, failed: failed, begun: make(chan struct{})}
	defer func() { err = errors.Join(err, a.close()) }()
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		err := a.session(ctx)
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, context.Canceled):
			return nil // told to end
		case cause != nil:
			return cause
		case a.server == nil && errors.Is(err, io.EOF):
			return nil // the monitor ended before it needed us
		case a.server == nil:
			return err
		case err == nil: // it had been well
			wait = firstWait
			logger.Warn("the monitor is gone; forwarding goes on")
		}
		select { // no event tells when there is another
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// How long to wait between attempts to find another monitor.
const (
	firstWait   = 10 * time.Millisecond
	longestWait = 500 * time.Millisecond
)

// session talks with one monitor until it is gone. An error says that there was
// none to talk with.
func (a *agent) session(ctx context.Context) error {
	conn, err := control.Dial(ctx, a.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	hello := control.Hello{Version: wire.Version, PID: int32(os.Getpid()), Features: wire.RoleServer, Name: "netserver"}
	if _, err := conn.Handshake(ctx, hello); err != nil {
		return err
	}
	s := &session{agent: a, ctx: ctx, conn: conn, in: wire.Receiver{Conn: conn}}
	a.present.Store(s)
	if err := s.begin(); err != nil {
		return err
	}
	if err := s.obey(); ctx.Err() == nil {
		a.logger.Info("the conversation with the monitor ended", "error", err)
	}
	return nil
}

// open opens the uplink and begins to forward.
func (a *agent) open(ctx context.Context, setup wire.Setup) (err error) {
	if setup.Uplink != nil {
		a.device, err = a.adopt(*setup.Uplink)
	} else {
		a.device, err = openUplink(ctx, setup, a.logger)
	}
	if err != nil {
		return err
	}
	a.server, err = netserver.New(netserver.Options{
		Uplink: a.device, View: a.views[0], Begin: a.begun, Spin: setup.Spin, Logger: a.logger,
		Broken: func(id uint32, err error) { a.present.Load().broken(id, err) },
	})
	if err != nil {
		return err
	}
	go func() {
		select {
		case err := <-a.server.Failed():
			a.failed(fmt.Errorf("uplink %s: %w", setup.NIC, err))
		case <-ctx.Done():
		}
	}()
	return nil
}

// adopt uses the queues that the monitor made. We keep a second descriptor of all:
// the first ones are the device's.
func (a *agent) adopt(e direct.Export) (direct.Device, error) {
	var files []int
	for _, f := range a.kept[min(len(a.kept), steer.KeepFiles):] {
		fd, err := unix.FcntlInt(uintptr(f), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			fd = -1 // Adopt says so
		}
		files = append(files, fd)
	}
	d, err := direct.Adopt(e, files, direct.AdoptOptions{Watch: true})
	if err != nil {
		return nil, fmt.Errorf("use the monitor's queues of %s: %w", e.NIC, err)
	}
	a.uplink = &e
	return d, nil
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

// takeView opens the portmap's table behind f.
func (a *agent) takeView(f *os.File) error {
	v, err := table.OpenView(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if a.viewFile != nil {
		_ = a.viewFile.Close() // only read
	}
	a.viewFile, a.views = f, append(a.views, v)
	return nil
}

func (a *agent) close() (err error) {
	if a.server != nil {
		a.server.Close()
	}
	if a.device != nil {
		err = a.device.Close()
	}
	if a.server != nil {
		a.server.Wait()
	}
	for _, v := range a.views {
		err = errors.Join(err, v.Close())
	}
	if a.viewFile != nil {
		err = errors.Join(err, a.viewFile.Close())
	}
	for _, f := range a.kept {
		_ = unix.Close(f)
	}
	return err
}
