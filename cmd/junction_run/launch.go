package main

import (
	"log/slog"
	"os"
	"time"

	"junction/cmd/junction_run/internal/cli"
	"junction/libos"
)

// launch runs an instance until its program ends and returns the program's
// exit code. What it opens it has closed when it returns.
func launch(s *cli.Settings, std stdio) (code int, err error) {
	logger := newLogger(std.err, s.LogFormat, s.LogLevel)
	for _, w := range s.Warnings {
		logger.Warn(w)
	}
	if err := checkDirs(s); err != nil {
		return 0, err
	}
	sigs := catchSignals(logger)
	defer sigs.stop()
	started := time.Now()

	n, err := openNetwork(sigs.ctx, s, logger)
	if err != nil {
		return 0, err
	}
	defer closing(logger, "network", n.close)
	inst, err := libos.Boot(instanceOptions(s, n, std, logger))
	if err != nil {
		return 0, err
	}
	defer closing(logger, "instance", inst.Close)
	if err := sigs.attach(inst); err != nil {
		return 0, err
	}
	if err := inst.Start(); err != nil {
		return 0, err
	}
	status := inst.Wait()
	if s.Stats != "" {
		closing(logger, "statistics", func() error {
			return newReport(s, inst, n, status, time.Since(started)).write(std.err, s.Stats)
		})
	}
	return status.ShellCode(), nil
}

// closing logs a failure to end something. The exit code stays the program's.
func closing(logger *slog.Logger, what string, end func() error) {
	if err := end(); err != nil {
		logger.Warn("not ended cleanly", "what", what, "error", err)
	}
}

func instanceOptions(s *cli.Settings, n *network, std stdio, logger *slog.Logger) libos.Options {
	return libos.Options{
		Name:          s.Name,
		Platform:      s.Engine,
		Argv:          s.Argv,
		Env:           s.Env,
		Cwd:           s.Cwd,
		UID:           s.UID,
		GID:           s.GID,
		Root:          s.Root,
		ReadWrite:     s.ReadWrite,
		Stdio:         [3]*os.File{std.in, std.out, std.err},
		Network:       n.tcpip.Stack(),
		Kthreads:      s.Kthreads,
		Strace:        s.Strace,
		CountSyscalls: s.Stats != "",
		Watchdog:      s.Watchdog,
		Logger:        logger,
	}
}
