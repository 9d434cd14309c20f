package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"junction/internal/monitor"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/internal/samefile"
	"junction/internal/usage"
	"junction/ipc/control"
)

// Exit codes of exec that are not the program's, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignalled     = 128 // plus the signal's number
)

// instance finds an instance by name or number.
func (c *ctl) instance(ctx context.Context, name string) (monitor.InstanceStatus, error) {
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return monitor.InstanceStatus{}, err
	}
	return find(s.Instances, name)
}

func (c *ctl) execCommand() *cobra.Command {
	var e wire.Exec
	cmd := command("exec NAME [--] PROGRAM [ARG...]", "Run a further program in an instance, by name or number", cobra.MinimumNArgs(2),
		func(ctx context.Context, args []string) error {
			e.Argv = args[1:]
			return c.exec(ctx, args[0], e)
		})
	cmd.Long = `Run a further program in an instance, as the first program's user and in its
file tree, on this command's standard streams. INT, TERM, HUP, QUIT, USR1, USR2,
WINCH, TSTP and CONT reach it, and a hang-up when this command ends before it; it
ends with the instance. On a terminal, it gets one of its own, which this command
carries to and from the user's.

Exit code: the program's own; 128+n when signal n killed it; 127: not found; 126:
not executable; 1: anything else that failed.`
	cmd.Flags().SetInterspersed(false) // what follows NAME is the program's
	cmd.Flags().StringArrayVarP(&e.Env, "env", "e", nil, "KEY=VALUE, added to the first program's environment (repeatable)")
	cmd.Flags().StringVar(&e.Cwd, "cwd", "", "working directory in the instance; default: the first program's")
	return cmd
}

func (c *ctl) exec(ctx context.Context, name string, e wire.Exec) error {
	for _, kv := range e.Env {
		if key, _, ok := strings.Cut(kv, "="); !ok || key == "" {
			return usage.Errorf("--env %q: want KEY=VALUE", kv)
		}
	}
	if len(e.Argv) > 0 && e.Argv[0] == "--" { // after NAME flags are over, so cobra leaves it
		e.Argv = e.Argv[1:]
	}
	if len(e.Argv) == 0 {
		return errors.New("exec: no program; want exec NAME -- PROGRAM [ARG...]")
	}
	streams := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	if isTerminal(streams[0]) && os.Getenv(ownTerminal) == "" {
		return onOwnTerminal(ctx, streams)
	}
	i, err := c.instance(ctx, name)
	if err != nil {
		return err
	}
	if isTerminal(streams[0]) {
		e.Env = append([]string{"TERM=" + os.Getenv("TERM")}, e.Env...)
	}
	e.ID = i.ID
	defer keepFlags(streams)()
	return c.run(ctx, e, streams)
}

// run starts the program and stays until it has ended.
func (c *ctl) run(ctx context.Context, e wire.Exec, streams [3]*os.File) error {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT)
	session, other, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	var files []int
	e.Streams, files = share(streams)
	ordered := c.order(ctx, "exec", e, new(wire.Started), append([]int{other}, files...)...)
	_ = unix.Close(other)
	// A monitor that has just died may have passed the order on before.
	if ordered != nil && !errors.Is(ordered, client.ErrLost) {
		return execError(ordered)
	}
	go func() {
		for sig := range signals {
			_ = session.Send(client.SessionSignal{Signal: int(sig.(unix.Signal))}) // it has just ended
		}
	}()
	var end client.SessionEnd
	switch err := session.Receive(&end); {
	case errors.Is(err, io.EOF) && ordered != nil:
		return ordered
	case errors.Is(err, io.EOF):
		return fmt.Errorf("instance %d ended before it told how the program ended", e.ID)
	case err != nil:
		return err
	case end.Signal != 0:
		return &exitError{code: exitSignalled + end.Signal}
	case end.Code != 0:
		return &exitError{code: end.Code}
	}
	return nil
}

// execError gives an error of the order its exit code.
func execError(err error) error {
	var refusal *control.Error
	if errors.As(err, &refusal) {
		switch unix.Errno(refusal.Code) {
		case unix.ENOENT:
			return &exitError{exitNotFound, err}
		case unix.ENOEXEC:
			return &exitError{exitNotExecutable, err}
		}
	}
	return err
}

// share lists files, those that are one only once, and which of them each is, from 1.
func share(streams [3]*os.File) (which [3]int, files []int) {
	for n, f := range streams {
		for m, g := range streams[:n] {
			if samefile.Same(f, g) {
				which[n] = which[m]
			}
		}
		if which[n] == 0 {
			files = append(files, int(f.Fd()))
			which[n] = len(files)
		}
	}
	return which, files
}

// keepFlags returns a function that gives files their status flags back: the
// instance makes what they share non-blocking.
func keepFlags(streams [3]*os.File) func() {
	var flags [3]int
	for n, f := range streams {
		var err error
		if flags[n], err = unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil {
			flags[n] = -1
		}
	}
	return func() {
		for n, f := range streams {
			if flags[n] >= 0 {
				_, _ = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags[n])
			}
		}
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (c *ctl) signalCommand() *cobra.Command {
	return command("signal NAME SIGNAL", "Send a signal, by name or number, to an instance's program", cobra.ExactArgs(2), c.signal)
}

func (c *ctl) signal(ctx context.Context, args []string) error {
	sig, err := parseSignal(args[1])
	if err != nil {
		return err
	}
	i, err := c.instance(ctx, args[0])
	if err != nil {
		return err
	}
	if err := c.order(ctx, "signal", wire.Signal{Target: wire.Target{ID: i.ID}, Signal: int(sig)}, new(struct{})); err != nil {
		return err
	}
	sent := struct {
		Schema int    `json:"schema"`
		ID     uint32 `json:"id"`
		Name   string `json:"name"`
		Signal string `json:"signal"`
	}{1, i.ID, i.Name, signalName(sig)}
	return c.print(sent, func(w io.Writer) { fmt.Fprintf(w, "%d\t%s\t%s\n", sent.ID, sent.Name, sent.Signal) })
}

// parseSignal reads TERM, SIGTERM or 15.
func parseSignal(s string) (unix.Signal, error) {
	const highest = 64
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= highest {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); n != 0 {
		return n, nil
	}
	return 0, usage.Errorf("signal %q: want a name such as TERM, or a number from 1 to %d", s, highest)
}

func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return strconv.Itoa(int(s))
}
