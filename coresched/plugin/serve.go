package plugin

import (
	"errors"
	"fmt"
	"os"
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
	once   sync.Once
}

// Traits returns the policy's.
func (s *controlServer) Traits(_ struct{}, reply *cs.Traits) error {
	*reply = s.policy.Traits()
	return nil
}

// Begin takes the rings up.
func (s *controlServer) Begin(struct{}, *struct{}) error {
	err := errors.New("begun already")
	s.once.Do(func() { err = s.begin() })
	return err
}

func (s *controlServer) begin() error {
	end, err := ipc.Attach(ipc.InstanceSide, [ipc.FilesPerEnd]int{firstRingFD, firstRingFD + 1, firstRingFD + 2})
	if err != nil {
		return err
	}
	page, err := OpenPage(pageFD)
	if err != nil {
		return errors.Join(err, end.Close())
	}
	go func() {
		err := NewLoop(s.policy, end, page, monotonic, s.opts.Spin).Run()
		if !Ended(err) {
			fmt.Fprintf(os.Stderr, "policy %s: %v\n", s.policy.Traits().Name, err)
			os.Exit(1)
		}
		// Whoever wanted the policy ends the program too, by a call; if it has
		// died instead, nobody will.
		time.Sleep(orderlyEnd)
		os.Exit(0)
	}()
	return nil
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
