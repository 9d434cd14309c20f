package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// child is a process of the network server's program. The one that serves has a
// spare: one that has started, connected, and waits to be promoted, so that the
// time to start a process is not part of an outage.
type child struct {
	process
	program  []string
	cmd      *exec.Cmd
	arrived  chan struct{} // closed when it has connected
	promoted chan struct{} // closed when it is to serve
	ended    chan struct{} // closed when it has ended; how is valid then
	how      string
}

// startChild starts a process. Of its end the kernel tells through its pidfd.
func startChild(program []string, socket string) (*child, error) {
	c := &child{
		program: program, cmd: exec.Command(program[0], append(slices.Clone(program[1:]), "--monitor", socket)...),
		arrived: make(chan struct{}), promoted: make(chan struct{}), ended: make(chan struct{}),
	}
	c.cmd.Stdout, c.cmd.Stderr = os.Stderr, os.Stderr
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the network server: %w", err)
	}
	c.process = process{c.cmd.Process.Pid, startOf(c.cmd.Process.Pid)}
	go func() {
		err := c.cmd.Wait()
		c.how = c.cmd.ProcessState.String()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			c.how = err.Error()
		}
		close(c.ended)
	}()
	return c, nil
}

// terminate asks the process to end.
func (c *child) terminate() { _ = c.cmd.Process.Signal(unix.SIGTERM) }

// usable tells whether it may be promoted to serve with a program.
func (c *child) usable(program []string) bool {
	select {
	case <-c.ended:
		return false
	default:
		return slices.Equal(c.program, program)
	}
}

// next promotes the spare, or a process that it starts. fresh tells which.
func (s *supervisor) next() (c *child, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.spare
	s.spare = nil
	if c != nil && !c.usable(s.program) {
		c.terminate()
		c = nil
	}
	if fresh = c == nil; fresh {
		if c, err = startChild(s.program, s.m.opts.Socket); err != nil {
			return nil, fresh, err
		}
	}
	s.proc, s.wasReady, s.serving = c.process, false, c
	close(c.promoted)
	return c, fresh, nil
}

// errEnds: the monitor ends and starts nothing any more.
var errEnds = errors.New("the monitor ends")

// makeSpare starts a spare, unless there is one, of the present program.
func (s *supervisor) makeSpare() (*child, error) {
	c, err := s.newSpare()
	if err == nil {
		s.m.mu.Lock() // the spare must be known to a successor before it may serve
		s.m.save()
		s.m.mu.Unlock()
	}
	return c, err
}

func (s *supervisor) newSpare() (*child, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends {
		return nil, errEnds
	}
	if s.spare != nil && s.spare.usable(s.program) {
		return s.spare, nil
	}
	if s.spare != nil {
		s.spare.terminate()
		s.spare = nil
	}
	c, err := startChild(s.program, s.m.opts.Socket)
	if err == nil {
		s.spare = c
	}
	return c, err
}

// tryProgram makes a spare of a program and waits until it has connected, or has
// ended.
func (s *supervisor) tryProgram(ctx context.Context) error {
	c, err := s.makeSpare()
	if err != nil {
		return err
	}
	select {
	case <-c.arrived:
		return nil
	case <-c.ended:
		return fmt.Errorf("it ended before it was ready: %s", c.how)
	case <-ctx.Done():
		c.terminate()
		return fmt.Errorf("it has not connected: %w", ctx.Err())
	}
}

// dropSpare ends the spare, for good.
func (s *supervisor) dropSpare() {
	s.mu.Lock()
	c := s.spare
	s.spare, s.ends = nil, true
	s.mu.Unlock()
	if c == nil {
		return
	}
	c.terminate()
	select {
	case <-c.ended:
	case <-time.After(readyTime):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}

// childOf finds the process that is pid: the one that serves, or the spare.
func (s *supervisor) childOf(pid int32) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range []*child{s.serving, s.spare} {
		if c != nil && c.PID == int(pid) {
			return c
		}
	}
	return nil
}

// awaitTurn holds a spare that has connected until it is promoted. Who is none,
// such as the server of the monitor before, goes on at once.
func (s *supervisor) awaitTurn(ctx context.Context, pid int32) error {
	c := s.childOf(pid)
	if c == nil {
		return nil
	}
	s.mu.Lock()
	select {
	case <-c.arrived: // it connects once more
	default:
		close(c.arrived)
	}
	s.mu.Unlock()
	select {
	case <-c.promoted:
		return nil
	case <-c.ended:
		return context.Canceled // nobody is there to be told
	case <-ctx.Done():
		return ctx.Err()
	}
}

// runOnce has a server serve and waits for its end.
func (s *supervisor) runOnce(ctx context.Context) (how string, err error) {
	c, fresh, err := s.next()
	if err != nil {
		return "", err
	}
	if fresh { // a spare has been saved before
		s.m.mu.Lock()
		s.m.save()
		s.m.mu.Unlock()
	}
	stop := context.AfterFunc(ctx, c.terminate)
	late := time.AfterFunc(readyTime, func() {
		if s.current() == nil {
			s.kill("it has not become ready")
		}
	})
	<-c.ended
	late.Stop()
	stop()
	s.fail(c.how)
	if !s.hadBeenReady() {
		s.m.uplink.renew(ctx)
	}
	s.setProcess(process{})
	s.lost(nil)
	return c.how, nil
}

// provide makes the spare of a server when that has taken up all its work: to
// start a process takes processor time that an outage would last longer by.
func (s *supervisor) provide(ctx context.Context, x *session) {
	select {
	case <-x.settled:
	case <-ctx.Done():
		return
	}
	if _, err := s.makeSpare(); err != nil && !errors.Is(err, errEnds) {
		s.m.opts.Logger.Warn("no spare", "error", err) // the next one will be started when it is needed
	}
}
