package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"junction/internal/bench/proctree"
	"junction/internal/lab"
)

// stopGrace is how long a server may take to end after SIGTERM.
const stopGrace = 30 * time.Second

// server is a program under a system. It is used by one goroutine.
type server struct {
	system System
	plan   *plan
	cmd    *lab.Cmd
	log    *os.File // standard output, unless the caller has put another, and standard error
	done   chan struct{}
	err    error     // of Wait; valid after done
	began  time.Time // just before the start
	ended  time.Time // valid after done
}

// newServer prepares a program without starting it. If cpu is not negative the
// program and all its threads stay on that CPU. The caller calls close.
func newServer(ctx context.Context, l *lab.Lab, sys System, p Program, cpu int) (*server, error) {
	plan, err := sys.prepare(l, p)
	if err != nil {
		return nil, err
	}
	log, err := os.CreateTemp("", "junction-bench-log-")
	if err != nil {
		return nil, errors.Join(err, plan.undo())
	}
	argv := pinned(plan.argv, cpu)
	cmd := l.Server.Command(ctx, argv[0], argv[1:]...)
	// A file, not a buffer: the end of the process is then seen at once.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	return &server{system: sys, plan: plan, cmd: cmd, log: log, done: make(chan struct{})}, nil
}

// pinned puts a command on a CPU. taskset(1) executes the command in its own
// place, so that the process stays the same.
func pinned(argv []string, cpu int) []string {
	if cpu < 0 {
		return argv
	}
	return append([]string{"taskset", "-c", strconv.Itoa(cpu)}, argv...)
}

// start starts the program.
func (s *server) start() error {
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.system.Name(), err)
	}
	go func() {
		s.err = s.cmd.Wait()
		s.ended = time.Now()
		close(s.done)
	}()
	return nil
}

// wait waits for the program to end by itself, and returns how it ended.
func (s *server) wait(ctx context.Context) error {
	select {
	case <-s.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.err != nil {
		return s.explain(s.err)
	}
	return nil
}

// probe returns nil if the server serves.
type probe func(context.Context, *server) error

// ready returns when probe succeeds. The program has no way to tell from where
// it runs, so probe is tried again and again.
func (s *server) ready(ctx context.Context, probe probe) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := probe(ctx, s)
		if err == nil {
			return nil
		}
		select {
		case <-s.done:
			return s.explain(errors.Join(errors.New("ended before it served"), s.err))
		case <-ctx.Done():
			return s.explain(fmt.Errorf("does not serve: %w", err))
		case <-time.After(pause):
		}
	}
}

// readyTimeout is how long a server may take until it serves.
const readyTimeout = 60 * time.Second

// explain adds the end of what the server printed.
func (s *server) explain(err error) error {
	const most = 600
	text := strings.TrimSpace(string(s.printed()))
	text = text[max(0, len(text)-most):]
	return fmt.Errorf("%s: %w; it printed: %q", s.system.Name(), err, text)
}

// printed returns all that the server has printed so far.
func (s *server) printed() []byte {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

// cpu returns the CPU time of all processes of the server so far, and of those
// that serve its network.
func (s *server) cpu() (time.Duration, error) {
	own, err := proctree.CPU(s.cmd.Process.Pid)
	if err != nil || s.plan.daemon == nil {
		return own, err
	}
	network, err := s.plan.daemon.cpu()
	return own + network, err
}

// address is where the server is reached.
func (s *server) address() netip.Addr {
	if s.plan.address.IsValid() {
		return s.plan.address
	}
	return address()
}

// memory returns the memory of all processes of the server.
func (s *server) memory() (proctree.Memory, error) { return proctree.MemoryOf(s.cmd.Process.Pid) }

// stop asks the program to end and waits until it has. The exit status does not
// matter: a signal ended it.
func (s *server) stop(ctx context.Context) error {
	if err := s.terminate(); err != nil {
		return s.explain(err)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(stopGrace):
		return s.explain(fmt.Errorf("does not end within %v of SIGTERM", stopGrace))
	}
}

// mode returns what was really in use, after the end of a program with Report.
func (s *server) mode() (string, error) {
	mode, err := s.plan.mode(s.printed())
	if err != nil {
		return "", s.explain(err)
	}
	return mode, nil
}

func (s *server) terminate() error {
	if s.plan.terminate != nil {
		return s.plan.terminate()
	}
	return s.cmd.Process.Signal(syscall.SIGTERM)
}

// close kills the program if it still runs, and removes what is left. Its
// processes are listed before: not all of them are in its process group.
func (s *server) close() error {
	var errs []error
	if s.cmd.Process != nil {
		errs = append(errs, s.kill())
	}
	errs = append(errs, s.plan.undo(), s.log.Close(), os.Remove(s.log.Name()))
	return errors.Join(errs...)
}

func (s *server) kill() error {
	select {
	case <-s.done:
		return nil
	default:
	}
	pids, err := proctree.Pids(s.cmd.Process.Pid)
	slices.Reverse(pids)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // may have ended
	}
	<-s.done
	return err
}
