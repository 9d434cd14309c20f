package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"junction/cmd/junction_run/internal/cli"
	"junction/internal/monitor/client"
	"junction/internal/monitor/cores"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/libos"
	modeswitch "junction/switch"
)

// operators carries out what operators order through the monitor.
type operators struct {
	logger   *slog.Logger
	cores    cli.Cores
	sessions sync.WaitGroup

	mu sync.Mutex
	// +checklocks:mu
	inst *libos.Instance // nil: the program does not run
	// +checklocks:mu
	link *modeswitch.Endpoint // the instance's
	// +checklocks:mu
	sharer *cores.Sharer // nil: cores were never scheduled
}

// attach makes inst the one that obeys. Its program runs.
func (o *operators) attach(inst *libos.Instance, link *modeswitch.Endpoint) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inst, o.link = inst, link
}

// detach ends obeying, for the program has ended, and waits until everybody
// has been told how theirs ended.
func (o *operators) detach() {
	o.mu.Lock()
	o.inst = nil
	sharer := o.sharer
	o.sharer = nil
	o.mu.Unlock()
	if sharer != nil {
		sharer.Stop()
	}
	o.sessions.Wait()
}

// obey implements client.Obey.
func (o *operators) obey(_ context.Context, verb string, args json.RawMessage, files []int) (any, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inst == nil {
		return nil, fmt.Errorf("the instance's program does not run now: %w", unix.EAGAIN)
	}
	switch verb {
	case "signal":
		var s wire.Signal
		if err := json.Unmarshal(args, &s); err != nil {
			return nil, fmt.Errorf("signal: %w", err)
		}
		if !validSignal(s.Signal) {
			return nil, fmt.Errorf("signal %d: %w", s.Signal, unix.EINVAL)
		}
		return struct{}{}, o.inst.SignalProgram(unix.Signal(s.Signal))
	case "exec":
		var e wire.Exec
		if err := json.Unmarshal(args, &e); err != nil {
			return nil, fmt.Errorf("exec: %w", err)
		}
		return o.exec(e, files)
	case wire.Cores:
		return o.share(files)
	}
	return nil, client.ErrVerb
}

func validSignal(n int) bool {
	const highest = 64
	return n > 0 && n <= highest
}

// exec starts a program and goes on with its session.
//
// +checklocks:o.mu
func (o *operators) exec(e wire.Exec, files []int) (any, error) {
	streams, err := takeStreams(e.Streams, files)
	if err != nil {
		return nil, err
	}
	session := client.OpenSession(files[0])
	files[0] = -1
	p, err := o.inst.Exec(libos.ExecOptions{Argv: e.Argv, Env: e.Env, Cwd: e.Cwd, Stdio: streams})
	if err != nil {
		_ = session.Close()
		return nil, execError(err)
	}
	o.logger.Info("further program", "argv", e.Argv, "pid", p.PID)
	o.sessions.Go(func() { attend(session, p, o.logger) })
	return wire.Started{PID: p.PID}, nil
}

// takeStreams takes the standard streams from the files beside an exec order:
// the session first, then each file that one or more of the streams are.
func takeStreams(which [3]int, files []int) (streams [3]int, err error) {
	if len(files) == 0 || len(files) > 1+len(which) {
		return streams, fmt.Errorf("exec with %d files; use programs of one release: %w", len(files), unix.EINVAL)
	}
	for n, w := range which {
		if w < 0 || w >= len(files) {
			return streams, fmt.Errorf("exec: descriptor %d is file %d of %d; use programs of one release: %w", n, w, len(files), unix.EINVAL)
		}
		streams[n] = -1
		if w > 0 {
			streams[n] = files[w]
		}
	}
	for _, w := range which {
		if w > 0 {
			files[w] = -1 // taken
		}
	}
	return streams, nil
}

// execError gives an error the number by which the other side knows the exit code.
func execError(err error) error {
	errno := unix.EIO
	switch {
	case errors.Is(err, libos.ErrNotFound):
		errno = unix.ENOENT
	case errors.Is(err, libos.ErrNotExecutable):
		errno = unix.ENOEXEC
	case errors.Is(err, libos.ErrEnded):
		errno = unix.ESRCH
	}
	return &control.Error{Code: uint32(errno), Text: err.Error()}
}

// program is a libos.Program.
type program interface {
	Signal(unix.Signal) error
	Done() <-chan struct{}
	Wait() libos.ExitStatus
}

// attend sends a program the signals that come, and at last tells how it ended.
// When the other side goes before, the program's terminal hangs up.
func attend(s *client.Session, p program, logger *slog.Logger) {
	received := make(chan struct{})
	go func() {
		defer close(received)
		for {
			var m client.SessionSignal
			err := s.Receive(&m)
			if err != nil {
				break
			}
			if !validSignal(m.Signal) {
				continue
			}
			if err := p.Signal(unix.Signal(m.Signal)); err != nil {
				logger.Debug("signal not delivered", "signal", m.Signal, "error", err)
			}
		}
		select {
		case <-p.Done():
		default:
			_ = p.Signal(unix.SIGHUP) // it may have just ended
			_ = p.Signal(unix.SIGCONT)
		}
	}()
	status := p.Wait()
	if err := s.Send(client.SessionEnd{Code: status.Code, Signal: status.Signal}); err != nil {
		logger.Debug("nobody to tell how a program ended", "error", err)
	}
	_ = s.Close()
	<-received
}
