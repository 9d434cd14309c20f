package cli

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"junction/internal/config"
	"junction/libos/kthreads"
)

// settings merges flags, configuration file and defaults, in this order.
// dash is the number of args before "--", or -1.
func (f *flags) settings(host Host, args []string, dash int) (*Settings, error) {
	file, argv, err := splitArgs(args, dash)
	if err != nil {
		return nil, err
	}
	cfg := new(config.Config)
	s := &Settings{Argv: argv}
	if file != "" {
		var warnings []config.Warning
		if cfg, warnings, err = config.Load(file); err != nil {
			return nil, configError(err)
		}
		for _, w := range warnings {
			s.Warnings = append(s.Warnings, w.String())
		}
	}
	f.output(s, cfg)
	if err := f.program(s, cfg, host); err != nil {
		return nil, err
	}
	return s, f.network(s, cfg, host)
}

// splitArgs tells the configuration file, or "", from the program.
func splitArgs(args []string, dash int) (file string, argv []string, err error) {
	switch {
	case len(args) == 0:
		return "", nil, usagef("no program given; write junction_run [CONFIG] [flags] -- PROGRAM [ARGS...], or --help")
	case dash < 0:
		return "", nil, usagef("no -- before the program; write junction_run [CONFIG] [flags] -- %s if %q is the program, or junction_run %s -- PROGRAM if it is the configuration file",
			strings.Join(args, " "), args[0], args[0])
	case dash > 1:
		return "", nil, usagef("%q: one configuration file at most can stand before --", args[1])
	case len(args) == dash:
		return "", nil, usagef("no program after --; write junction_run [CONFIG] [flags] -- PROGRAM [ARGS...]")
	}
	if dash == 1 {
		file = args[0]
	}
	return file, args[dash:], nil
}

// configError makes what is wrong in a file a usage error; a file that cannot
// be read is an error of set-up.
func configError(err error) error {
	if errors.Is(err, config.ErrFile) {
		return err
	}
	return &UsageError{err}
}

// output settles logging and statistics.
func (f *flags) output(s *Settings, cfg *config.Config) {
	s.LogFormat, s.Stats, s.Strace, s.Pcap = cmp.Or(f.logFormat, "text"), f.stats, f.strace, f.pcap
	s.LogLevel = cfg.LogLevel.Or(slog.LevelWarn)
	if f.set.Changed("log-level") {
		s.LogLevel = f.logLevel
	}
	if s.Strace { // its lines have level info
		s.LogLevel = min(s.LogLevel, slog.LevelInfo)
	}
}

// program settles what concerns the program and the machine under it.
func (f *flags) program(s *Settings, cfg *config.Config, host Host) error {
	s.Engine = cmp.Or(f.engine, "auto")
	s.Boundary = cmp.Or(f.boundary, "kill")
	s.Name = cmp.Or(f.name, nameOf(s.Argv[0]))
	s.Moves = f.moves
	s.Watchdog = !cfg.DisableWatchdog.V
	s.Env = mergeEnv(host.Environ, f.env)
	s.UID, s.GID = host.UID, host.GID
	if f.set.Changed("uid") {
		s.UID = f.uid
	}
	if f.set.Changed("gid") {
		s.GID = f.gid
	}
	s.Quantum = cfg.Quantum.Or(kthreads.DefaultQuantum)
	if f.set.Changed("quantum") {
		s.Quantum = f.quantum
	}
	s.Kthreads = cmp.Or(f.kthreads, cfg.Kthreads.V)
	if s.Kthreads > host.CPUs {
		s.warn("%d kthreads asked for, %d used: the host grants this process %d processors", s.Kthreads, host.CPUs, host.CPUs)
		s.Kthreads = host.CPUs
	}
	return f.paths(s, host)
}

// paths settles the directories.
func (f *flags) paths(s *Settings, host Host) error {
	s.Root, s.Cwd = "/", cmp.Or(host.Cwd, "/")
	var err error
	if f.root != "" {
		s.Cwd = "/" // the caller's directory means nothing in another tree
		if s.Root, err = absolute(host.Cwd, f.root); err != nil {
			return usagef("--rootfs %q: %w", f.root, err)
		}
	}
	if f.cwd != "" {
		if !filepath.IsAbs(f.cwd) {
			return usagef("--cwd %q: accepted: an absolute path, in the instance", f.cwd)
		}
		s.Cwd = filepath.Clean(f.cwd)
	}
	for _, p := range f.rw {
		abs, err := absolute(host.Cwd, p)
		if err != nil {
			return usagef("--rw %q: %w", p, err)
		}
		if slices.Contains(s.ReadWrite, abs) {
			return usagef("--rw %q: this directory is given twice; remove one of the two", p)
		}
		s.ReadWrite = append(s.ReadWrite, abs)
	}
	return nil
}

func (s *Settings) warn(format string, args ...any) {
	s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
}

// nameOf makes a host name of a program's.
func nameOf(program string) string {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return r
		}
		return '-'
	}, filepath.Base(program))
	name = strings.Trim(name[:min(len(name), 63)], "-_.")
	return cmp.Or(name, "junction")
}

// mergeEnv returns base with the entries of more, which replace those of the
// same name; of several in more the last one counts.
func mergeEnv(base, more []string) []string {
	names := make(map[string]int)
	var out []string
	for _, kv := range slices.Concat(base, more) {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := names[name]; ok {
			out[i] = kv
			continue
		}
		names[name] = len(out)
		out = append(out, kv)
	}
	return out
}
