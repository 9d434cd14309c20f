package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// lines runs a program to its end, and calls each for every line that it prints
// to standard output, with the process that was started. A program that fails,
// or prints what each does not want, is an error. used is the CPU time of the
// process and of those of its children that it has waited for.
func (r *runner) lines(ctx context.Context, sys System, p Program, cpu int, each func(line string, pid int) error) (used time.Duration, err error) {
	s, err := newServer(ctx, r.lab, sys, p, cpu)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	in, out, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	s.cmd.Stdout = out
	err = s.start()
	_ = out.Close() // the program has its own
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = in.SetReadDeadline(time.Now()) })()
	read := bufio.NewScanner(in)
	for read.Scan() {
		if err := each(read.Text(), s.cmd.Process.Pid); err != nil {
			return 0, s.explain(err)
		}
	}
	if err := read.Err(); err != nil {
		return 0, s.explain(fmt.Errorf("reading what the program prints: %w", err))
	}
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime(), nil
}
