package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"junction/internal/monitor/client"
	"junction/libos"
)

// TestTakeStreams: whatever an order says, each file is taken once or left to be closed.
func TestTakeStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := rapid.SliceOfN(rapid.Just(0), 0, 6).Draw(t, "files")
		for n := range files {
			files[n] = 100 + n
		}
		index := rapid.IntRange(-1, 6)
		which := [3]int{index.Draw(t, "in"), index.Draw(t, "out"), index.Draw(t, "err")}
		left := slices.Clone(files)
		streams, err := takeStreams(which, left)
		if err != nil {
			require.Equal(t, files, left, "nothing is taken")
			return
		}
		require.Equal(t, 100, left[0], "the session")
		taken := make(map[int]bool)
		for n, w := range which {
			if w == 0 {
				require.Equal(t, -1, streams[n])
				continue
			}
			require.Equal(t, files[w], streams[n])
			taken[w] = true
		}
		for n := 1; n < len(files); n++ {
			require.Equal(t, taken[n], left[n] == -1)
		}
	})
}

// running is a program that a test ends.
type running struct {
	signals chan unix.Signal
	done    chan struct{}
	status  libos.ExitStatus
}

func (r *running) Signal(s unix.Signal) error { r.signals <- s; return nil }
func (r *running) Done() <-chan struct{}      { return r.done }
func (r *running) Wait() libos.ExitStatus     { <-r.done; return r.status }

func beginSession(t *testing.T) (*client.Session, *running, chan struct{}) {
	s, fd, err := client.NewSession()
	require.NoError(t, err)
	p := &running{signals: make(chan unix.Signal, 8), done: make(chan struct{})}
	over := make(chan struct{})
	go func() {
		defer close(over)
		attend(client.OpenSession(fd), p, slog.New(slog.DiscardHandler))
	}()
	return s, p, over
}

func TestAttend(t *testing.T) {
	s, p, over := beginSession(t)
	require.NoError(t, s.Send(client.SessionSignal{Signal: 99})) // ignored
	require.NoError(t, s.Send(client.SessionSignal{Signal: int(unix.SIGUSR1)}))
	require.Equal(t, unix.SIGUSR1, <-p.signals)
	p.status = libos.ExitStatus{Code: 3}
	close(p.done)
	var end client.SessionEnd
	require.NoError(t, s.Receive(&end))
	require.Equal(t, client.SessionEnd{Code: 3}, end)
	require.NoError(t, s.Close())
	<-over
}

// TestEndAfterUnreadSignal: how a program ended is told also when a signal came
// too late to be read.
func TestEndAfterUnreadSignal(t *testing.T) {
	s, fd, err := client.NewSession()
	require.NoError(t, err)
	other := client.OpenSession(fd)
	require.NoError(t, s.Send(client.SessionSignal{Signal: int(unix.SIGWINCH)}))
	require.NoError(t, other.Send(client.SessionEnd{Code: 5}))
	require.NoError(t, other.Close())
	var end client.SessionEnd
	require.NoError(t, s.Receive(&end))
	require.Equal(t, 5, end.Code)
	require.ErrorIs(t, s.Receive(&end), io.EOF)
	require.NoError(t, s.Close())
}

// TestHangUp: a program whose user has gone, or talks nonsense, is hung up.
func TestHangUp(t *testing.T) {
	for _, last := range []any{nil, "nonsense"} {
		s, p, over := beginSession(t)
		if last != nil {
			require.NoError(t, s.Send(last))
		} else {
			require.NoError(t, s.Close())
		}
		require.Equal(t, unix.SIGHUP, <-p.signals)
		require.Equal(t, unix.SIGCONT, <-p.signals)
		close(p.done)
		<-over
		_ = s.Close() // once or twice
	}
}

// TestOrdersWithoutProgram: before it runs, and after, there is nothing to order about.
func TestOrdersWithoutProgram(t *testing.T) {
	var o operators
	_, err := o.obey(t.Context(), "signal", json.RawMessage(`{"signal":15}`), nil)
	require.ErrorIs(t, err, unix.EAGAIN)
	o.detach()
}
