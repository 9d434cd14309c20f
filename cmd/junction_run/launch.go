package main

import (
	"cmp"
	"log/slog"
	"math"
	"os"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"junction/cmd/junction_run/internal/cli"
	"junction/libos"
	"junction/libos/boundary"
	"junction/libos/engine"
)

// launch runs an instance until its program ends and returns the program's
// exit code. What it opens it has closed when it returns.
func launch(s *cli.Settings, std stdio) (code int, err error) {
	if err := boundary.CloseInherited(); err != nil {
		return 0, err
	}
	logger := newLogger(std.err, s.LogFormat, s.LogLevel)
	for _, w := range s.Warnings {
		logger.Warn(w)
	}
	if err := checkDirs(s); err != nil {
		return 0, err
	}
	sigs := catchSignals(logger)
	defer sigs.stop()
	// The NIC is opened while the libOS boots: either takes some 20 ms.
	ops := &operators{logger: logger, cores: s.Cores}
	opened := openInBackground(sigs.ctx, s, ops.obey, logger)
	r, err := execute(s, opened, std, logger, sigs, ops)
	n, openErr := opened()
	if openErr != nil {
		return 0, openErr
	}
	closing(logger, "network", n.close)
	if err != nil {
		return 0, err
	}
	if s.Stats != "" {
		r.addNetwork(n) // closed, so the counters stand still and add up
		closing(logger, "statistics", func() error { return r.write(std.err, s.Stats) })
	}
	return r.ExitCode, nil
}

// execute boots an instance on the network that is being opened, runs its
// program to the end and tells how it went.
func execute(s *cli.Settings, opened func() (*network, error), std stdio, logger *slog.Logger, sigs *signals, ops *operators) (report, error) {
	opts := instanceOptions(s, std, logger)
	opts.Network = func() (*stack.Stack, error) {
		n, err := opened()
		if err != nil {
			return nil, err
		}
		return n.tcpip.Stack(), nil
	}
	inst, err := libos.Boot(opts)
	if err != nil {
		return report{}, err
	}
	defer closing(logger, "instance", inst.Close)
	defer sigs.detach() // before Close
	if err := sigs.attach(inst); err != nil {
		return report{}, err
	}
	started := time.Now()
	if err := inst.Start(); err != nil {
		return report{}, err
	}
	n, err := opened()
	if err != nil {
		return report{}, err
	}
	ops.attach(inst, n.link)
	code := inst.Wait().ShellCode()
	ops.detach()
	return report{Schema: 1, Name: s.Name, Mode: s.Mode, ExitCode: code,
		ElapsedSeconds: time.Since(started).Seconds(), Stats: inst.Stats()}, nil
}

// closing logs a failure to end something. The exit code stays the program's.
func closing(logger *slog.Logger, what string, end func() error) {
	if err := end(); err != nil {
		logger.Warn("not ended cleanly", "what", what, "error", err)
	}
}

// policies are those that --moves names, for tests.
var policies = map[string]*engine.Policy{
	"always": {},
	"soon":   {Saving: 1, Move: 1}, // after the first Switches outside
	"never":  {Move: math.MaxInt64},
}

func instanceOptions(s *cli.Settings, std stdio, logger *slog.Logger) libos.Options {
	return libos.Options{
		Name:      s.Name,
		Platform:  s.Engine,
		Argv:      s.Argv,
		Env:       s.Env,
		Cwd:       s.Cwd,
		UID:       s.UID,
		GID:       s.GID,
		Root:      s.Root,
		ReadWrite: s.ReadWrite,
		Stdio:     [3]*os.File{std.in, std.out, std.err},
		Boundary:  boundary.Violation(s.Boundary),
		Kthreads:  s.Kthreads,
		Quantum:   cmp.Or(s.Quantum, -1),
		Policy:    policies[s.Moves],
		Strace:    s.Strace,
		Watchdog:  s.Watchdog,
		Logger:    logger,
	}
}
