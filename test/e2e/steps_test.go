package e2e

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// steppingEnv makes the test's program a monitor that stops where the test wants it
// to: junctiond itself has no such thing. Its value is netserver's path.
const steppingEnv = "JUNCTION_E2E_STEPPING_MONITOR"

// steppingMonitor is the other side of steps: it tells by descriptor 3 where a switch
// is, and goes on when a line comes by descriptor 4, which may say how long a step may
// take from then on.
func steppingMonitor(server string, args []string) error {
	const patience = time.Minute // the tests' own load is no reason to roll back
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	places, answers := os.NewFile(3, "places"), bufio.NewReader(os.NewFile(4, "answers"))
	var limit atomic.Int64
	limit.Store(int64(patience))
	var mu sync.Mutex
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	return monitor.Run(ctx, monitor.Options{
		Socket: args[0], Uplink: wire.Setup{NIC: args[1], Driver: "afxdp"},
		Shared:    []netip.Prefix{lab.ServerAddr4, lab.ServerAddr6},
		Dedicated: []netip.Prefix{netip.MustParsePrefix(dedicatedNet)},
		Server:    []string{server}, HangAfter: 3 * time.Second,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
		StepTime: func(protocol.Step) time.Duration { return time.Duration(limit.Load()) },
		AtSwitch: func(_ uint32, what string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(places, what)
			answer, err := answers.ReadString('\n')
			if d, bad := time.ParseDuration(strings.TrimSpace(answer)); err == nil && bad == nil {
				limit.Store(int64(d))
			}
		},
	})
}

// steps is a monitor that tells where a switch is, and stops there if it is to.
type steps struct {
	t       testing.TB
	answers *os.File
	reached chan struct{} // gets a value when it has stopped
	over    chan struct{} // closed when the monitor has ended

	mu sync.Mutex
	// +checklocks:mu
	want string // what the place to stop at begins with; empty: nowhere
	// +checklocks:mu
	stopped bool
	// +checklocks:mu
	limit string // told with the next answer
}

// startSteps starts such a monitor as the rig's.
func (r *rig) startSteps() *steps {
	r.t.Helper()
	if r.socket == "" {
		r.socket = filepath.Join(workDir(r.t), "monitor.sock")
	}
	self, err := os.Executable()
	require.NoError(r.t, err)
	placesR, placesW, err := os.Pipe()
	require.NoError(r.t, err)
	answersR, answersW, err := os.Pipe()
	require.NoError(r.t, err)
	c := r.Server.Command(context.Background(), self, r.socket, lab.ServerNIC)
	c.Env = append(os.Environ(), steppingEnv+"="+filepath.Join(commands, "netserver"))
	c.ExtraFiles = []*os.File{placesW, answersR}
	r.monitor = launch(r.t, c, c.Cmd)
	_, _ = placesW.Close(), answersR.Close()
	s := &steps{t: r.t, answers: answersW, reached: make(chan struct{}, 1), over: make(chan struct{})}
	go s.run(placesR)
	r.t.Cleanup(func() {
		_ = answersW.Close()
		r.monitor.kill()
		<-s.over
	})
	r.monitor.awaitCond(r.monitor.stderr, contains("network server ready"), "the network server")
	r.awaitAll()
	return s
}

func (s *steps) run(places *os.File) {
	defer close(s.over)
	defer places.Close()
	for lines := bufio.NewScanner(places); lines.Scan(); {
		s.mu.Lock()
		stop := s.want != "" && strings.HasPrefix(lines.Text(), s.want)
		if stop {
			s.want, s.stopped = "", true
			s.reached <- struct{}{}
		} else {
			s.answer()
		}
		s.mu.Unlock()
	}
}

// stopAt has the monitor stop once at the next place that begins so.
func (s *steps) stopAt(place string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = place
}

// release has it go on, if it has stopped.
func (s *steps) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		s.answer()
	}
}

// +checklocks:s.mu
func (s *steps) answer() {
	_, _ = s.answers.WriteString(s.limit + "\n") // it may have ended
	s.limit, s.stopped = "", false
}

// stepTime sets how long steps may take from the next place on.
func (s *steps) stepTime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = d.String()
}

// await waits until it has stopped.
func (s *steps) await() {
	s.t.Helper()
	select {
	case <-s.reached:
	case <-s.over:
		s.t.Fatal("the monitor ended")
	case <-time.After(readyTimeout):
		s.mu.Lock()
		defer s.mu.Unlock()
		s.t.Fatalf("the switch does not come to %q", s.want)
	}
}
