package plugin

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/ipc"
)

// Options are how a policy's process works.
type Options struct {
	// Spin is for how long it looks for work before it sleeps. 0: it sleeps at
	// once, and what a policy wants done at a certain time is done when Go's
	// timers say so, up to a millisecond late.
	Spin cs.Time
}

// Serve is all that a policy's program has to call. It returns when the
// actuator wants the policy no more, and ends the program when the actuator has
// gone.
func Serve(p cs.Policy, o Options) {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         goplugin.PluginSet{pluginName: &controlPlugin{&controlServer{policy: p, opts: o}}},
		Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr}),
	})
}

// orderlyEnd is how long a program waits to be ended once its rings are gone.
const orderlyEnd = 500 * time.Millisecond

// controlServer answers the control calls.
type controlServer struct {
	policy cs.Policy
	opts   Options

	mu sync.Mutex
	// +checklocks:mu
	ended chan struct{} // closed when nobody is served any more
	// +checklocks:mu
	end *time.Timer // of the program, since then
	// +checklocks:mu
	orphaned time.Duration // how long it waits for a successor of an actuator that died
}

// Traits returns the policy's.
func (s *controlServer) Traits(_ struct{}, reply *cs.Traits) error {
	*reply = s.policy.Traits()
	return nil
}

// Begin takes the rings up.
func (s *controlServer) Begin(struct{}, *struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return errors.New("begun already")
	}
	return s.begin([ipc.FilesPerEnd]int{firstRingFD, firstRingFD + 1, firstRingFD + 2}, pageFD)
}

// Survive has the program outlive its actuator by so much: another one may
// Reattach until then.
func (s *controlServer) Survive(most time.Duration, _ *struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphaned = most
	signal.Ignore(unix.SIGPIPE) // its log goes to who has died
	return nil
}

// Renewal is where another actuator has rings and a page for the policy.
type Renewal struct {
	PID  int
	Ring [ipc.FilesPerEnd]int // descriptors of that process
	Page int
}

// goneTime is how long a policy may take to see that its actuator has gone.
const goneTime = 3 * time.Second

// Renew takes up the rings of another actuator, since the one before has died. It
// answers with this process's number.
func (s *controlServer) Renew(r Renewal, reply *int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil || s.orphaned == 0 {
		return errors.New("no policy that outlives its actuator")
	}
	select {
	case <-s.ended:
	case <-time.After(goneTime):
		return errors.New("the actuator before is still there")
	}
	fds, err := fetchFiles(&r)
	if err != nil {
		return err
	}
	*reply = os.Getpid()
	return s.begin([ipc.FilesPerEnd]int(fds), fds[ipc.FilesPerEnd])
}

// fetchFiles duplicates what an actuator has open.
func fetchFiles(r *Renewal) (fds []int, err error) {
	pidfd, err := unix.PidfdOpen(r.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("actuator %d: %w", r.PID, err)
	}
	defer unix.Close(pidfd)
	for _, theirs := range append(r.Ring[:], r.Page) {
		fd, err := unix.PidfdGetfd(pidfd, theirs, 0)
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			return nil, fmt.Errorf("descriptor %d of actuator %d: %w", theirs, r.PID, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// begin serves an actuator.
// +checklocks:s.mu
func (s *controlServer) begin(ring [ipc.FilesPerEnd]int, pageFD int) error {
	end, err := ipc.Attach(ipc.InstanceSide, ring)
	if err != nil {
		return err
	}
	page, err := OpenPage(pageFD)
	if err != nil {
		return errors.Join(err, end.Close())
	}
	if s.end != nil {
		s.end.Stop()
		s.end = nil
	}
	ended := make(chan struct{})
	s.ended = ended
	go func() {
		s.serve(NewLoop(s.policy, end, page, monotonic, s.opts.Spin), func() error {
			defer close(ended)
			return errors.Join(end.Close(), page.Close())
		})
		s.abandoned(ended)
	}()
	return nil
}

// serve serves an actuator until its rings are gone.
func (s *controlServer) serve(l *Loop, closeAll func() error) {
	err := l.Run()
	if !Ended(err) {
		fmt.Fprintf(os.Stderr, "policy %s: %v\n", s.policy.Traits().Name, err)
		os.Exit(1)
	}
	if err := closeAll(); err != nil {
		fmt.Fprintf(os.Stderr, "policy %s: %v\n", s.policy.Traits().Name, err)
	}
}

// abandoned has the program end some time after nobody is served any more since
// ended was closed. Whoever wanted the policy ends the program too, by a call; if it
// has died instead, nobody will, but another one may be served by now.
func (s *controlServer) abandoned(ended chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != ended {
		return
	}
	s.end = time.AfterFunc(max(orderlyEnd, s.orphaned), func() { os.Exit(0) })
}

// monotonic is the clock of both sides: CLOCK_MONOTONIC. Go reads it without a
// system call, but tells only differences.
func monotonic() cs.Time { return startMonotonic + time.Since(startTime) }

var startMonotonic, startTime = readClock()

func readClock() (cs.Time, time.Time) {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail with this clock
	return cs.Time(ts.Nano()), time.Now()
}
