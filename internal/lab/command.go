package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// outputGrace is how long Wait waits for a dead program's output to end when a
// program that it left behind still holds the pipe.
const outputGrace = 5 * time.Second

// Cmd is an exec.Cmd whose program starts in a namespace, in a process group of
// its own. It is killed when its context ends, when the lab is closed, and when
// this process dies, however that happens.
type Cmd struct {
	*exec.Cmd
	ns *Namespace

	waitOnce sync.Once
	waitErr  error
}

// Command returns a command that runs in the namespace with /sys showing the
// namespace's devices. It needs no `ip` program: an OS thread that lives in the
// namespace starts it.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return killGroup(c.Process) }
	c.WaitDelay = outputGrace
	return &Cmd{Cmd: c, ns: n}
}

// Start is exec.Cmd's, in the namespace.
func (c *Cmd) Start() error {
	if c.Dir == "" {
		// The namespace's thread does not see later changes of directory.
		dir, err := os.Getwd()
		if err != nil {
			return fmt.Errorf("lab: start %s: %w", c.Path, err)
		}
		c.Dir = dir
	}
	c.ns.mu.Lock()
	defer c.ns.mu.Unlock()
	if c.ns.thread == nil {
		return ErrClosed
	}
	var err error
	c.ns.thread.call(func() { err = withOwnSysfs(c.ns.home, c.Cmd.Start) })
	if err == nil {
		c.ns.started = append(c.ns.started, c)
	}
	return err
}

// Wait is exec.Cmd's, except that it may be called more than once and from
// several goroutines.
func (c *Cmd) Wait() error {
	c.waitOnce.Do(func() { c.waitErr = c.Cmd.Wait() })
	return c.waitErr
}

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns what it wrote to its standard output. An
// exec.ExitError carries what it wrote to standard error unless that was
// redirected.
func (c *Cmd) Output() ([]byte, error) {
	var out, diag bytes.Buffer
	c.Stdout = &out
	captured := c.Stderr == nil
	if captured {
		c.Stderr = &diag
	}
	err := c.Run()
	var exit *exec.ExitError
	if captured && errors.As(err, &exit) {
		exit.Stderr = diag.Bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the program and returns all that it wrote.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// KillGroup sends SIGKILL to the program and its process group.
func (c *Cmd) KillGroup() error { return killGroup(c.Process) }

func killGroup(p *os.Process) error {
	if p == nil {
		return os.ErrProcessDone
	}
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
