package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that go to the program. Those marked true end the
// set-up when they arrive before there is a program.
var forwarded = map[unix.Signal]bool{
	unix.SIGINT: true, unix.SIGTERM: true, unix.SIGHUP: true, unix.SIGQUIT: true,
	unix.SIGUSR1: true, unix.SIGUSR2: true, unix.SIGWINCH: false,
	unix.SIGTSTP: false, unix.SIGCONT: false, // ^Z, fg and bg of a terminal
}

// interrupted is the error of a set-up that a signal ended.
type interrupted unix.Signal

func (i interrupted) Error() string {
	return fmt.Sprintf("set-up ended by %s before the program started", unix.SignalName(unix.Signal(i)))
}

// receiver is what signals are sent on to: a libos.Instance.
type receiver interface {
	Signal(unix.Signal) error
	Stopped() bool
}

// signals catches the process's signals from its creation until stop.
type signals struct {
	// ctx ends, with an interrupted as its cause, when the set-up is to end.
	ctx    context.Context
	cancel context.CancelCauseFunc
	ch     chan os.Signal
	logger *slog.Logger
	done   sync.WaitGroup

	mu sync.Mutex
	// +checklocks:mu
	program receiver
}

func catchSignals(logger *slog.Logger) *signals {
	s := &signals{ch: make(chan os.Signal, 64), logger: logger}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	for sig := range forwarded {
		signal.Notify(s.ch, sig)
	}
	s.done.Go(s.run)
	return s
}

func (s *signals) run() {
	for sig := range s.ch {
		s.handle(sig.(unix.Signal))
	}
}

func (s *signals) handle(sig unix.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.program != nil:
		if err := s.program.Signal(sig); err != nil {
			s.logger.Warn("signal not delivered to the program", "signal", unix.SignalName(sig), "error", err)
		}
		if sig == unix.SIGTSTP {
			s.suspend()
		}
	case forwarded[sig]:
		s.cancel(interrupted(sig))
	}
}

// suspend stops this process when ^Z has stopped the program, so that the
// shell outside gets its terminal back; SIGCONT continues both. The libOS has
// no event for it: a program with a handler takes a moment to stop itself, and
// an interactive shell inside never does.
func (s *signals) suspend() {
	const step, steps = 5 * time.Millisecond, 40
	for range steps {
		if s.program.Stopped() {
			if err := unix.Kill(os.Getpid(), unix.SIGSTOP); err != nil {
				s.logger.Warn("cannot stop with the program", "error", err)
			}
			return
		}
		time.Sleep(step)
	}
}

// attach sends signals on to the program from now on. It returns an error if
// one that ends the set-up has arrived before.
func (s *signals) attach(program receiver) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.program = program
	return context.Cause(s.ctx)
}

// detach sends signals on to nobody, for the program has ended.
func (s *signals) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.program = nil
}

// stop gives the signals their former meaning back.
func (s *signals) stop() {
	signal.Stop(s.ch)
	close(s.ch)
	s.done.Wait()
	s.cancel(nil)
}
