package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"junction/internal/bench/actors"
)

// actor is a process of package actors.
type actor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// besideOf returns where a program lies that is in the same folder as another.
func besideOf(path, name string) string { return filepath.Join(filepath.Dir(path), name) }

// actorProgram is the command line that plays roles.
func (o *Options) actorProgram() []string {
	return []string{besideOf(o.JunctionRun, "junction_bench"), "actor"}
}

// startActor starts one in a role. The caller calls end.
func (r *runner) startActor(ctx context.Context, files []*os.File, role ...string) (_ *actor, err error) {
	argv := append(r.o.actorProgram(), role...)
	a := &actor{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	a.cmd.Stderr, a.cmd.ExtraFiles = os.Stderr, files
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if a.in, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.out = bufio.NewScanner(out)
	return a, a.cmd.Start()
}

// line returns the next that it prints.
func (a *actor) line() (string, error) {
	if !a.out.Scan() {
		return "", errors.Join(fmt.Errorf("%s: ended early", a.cmd.Args), a.out.Err())
	}
	return a.out.Text(), nil
}

// numbers reads so many lines, of a number each.
func (a *actor) numbers(n int) (all []int, err error) {
	for len(all) < n {
		text, err := a.line()
		if err != nil {
			return nil, err
		}
		v, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// end ends it, whatever it does.
func (a *actor) end() {
	_ = a.in.Close()
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// startLight starts a light instance, which has joined then. The caller calls end.
func (r *runner) startLight(ctx context.Context, role string, l actors.Light) (*actor, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	a, err := r.startActor(ctx, nil, role, string(text))
	if err != nil {
		return nil, err
	}
	if _, err := a.line(); err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

// withBoard has use work with a board for actors.
func (r *runner) withBoard(use func(path string, b *actors.Board) error) (err error) {
	f, err := os.CreateTemp(r.dir, "board-")
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	b, err := actors.OpenBoard(f.Name())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, actors.CloseBoard(b), os.Remove(f.Name())) }()
	return use(f.Name(), b)
}

// withDaemon has use work with a monitor.
func (r *runner) withDaemon(use func(d *daemon) error) (err error) {
	d, err := startDaemon(r.lab, ServerMode{Path: r.o.JunctionRun, Driver: switchDriver})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := use(d); err != nil {
		text, _ := os.ReadFile(d.log.Name())
		return fmt.Errorf("%w; junctiond printed: %.600q", err, text)
	}
	return nil
}

// watch calls look again and again for a time, with pauses in which others run.
func (r *runner) watch(ctx context.Context, length time.Duration, look func() error) error {
	for end := time.Now().Add(length); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
		if err := look(); err != nil {
			return err
		}
	}
	return nil
}

// pass lets time pass.
func (r *runner) pass(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
		return nil
	}
}
