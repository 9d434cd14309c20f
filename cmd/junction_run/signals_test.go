package main

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// recorder is a program that says what it gets.
type recorder struct {
	got chan unix.Signal
	err error
}

func (r recorder) Signal(sig unix.Signal) error { r.got <- sig; return r.err }
func (r recorder) Stopped() bool                { return false }

func TestSignalsReachTheProgram(t *testing.T) {
	s := catchSignals(slog.New(slog.DiscardHandler))
	defer s.stop()
	p := recorder{got: make(chan unix.Signal, 1)}
	require.NoError(t, s.attach(p))
	for sig := range forwarded {
		require.NoError(t, unix.Kill(os.Getpid(), sig))
		require.Equal(t, sig, <-p.got)
	}
	require.NoError(t, s.ctx.Err())

	s.detach()
	s.handle(unix.SIGTERM)
	require.Empty(t, p.got)
}

func TestSignalsEndTheSetUp(t *testing.T) {
	s := catchSignals(slog.New(slog.DiscardHandler))
	defer s.stop()
	s.handle(unix.SIGWINCH) // means nothing to a set-up
	require.NoError(t, s.ctx.Err())
	require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
	<-s.ctx.Done()
	s.handle(unix.SIGINT) // the first one counts
	err := s.attach(recorder{})
	require.Equal(t, interrupted(unix.SIGTERM), err)
	require.EqualError(t, err, "set-up ended by SIGTERM before the program started")
}

func TestUndeliverableSignalIsLogged(t *testing.T) {
	var log strings.Builder
	s := catchSignals(newLogger(&log, "text", slog.LevelWarn))
	require.NoError(t, s.attach(recorder{got: make(chan unix.Signal, 1), err: errors.New("gone")}))
	s.handle(unix.SIGHUP)
	s.stop()
	require.Contains(t, log.String(), `msg="signal not delivered to the program" signal=SIGHUP error=gone`)
}
