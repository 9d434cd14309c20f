package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"junction/cmd/junction_run/internal/cli"
	"junction/internal/monitor/wire"
	"junction/internal/version"
	"junction/libos"
)

// Exit codes that are not the program's, as shells have them.
const (
	exitSetup         = 1
	exitUsage         = 2
	exitNotExecutable = 126
	exitNotFound      = 127
)

// stdio are the files that the command and the program talk through.
type stdio struct{ in, out, err *os.File }

// run executes the command line and returns the exit code.
func run(args []string, std stdio) int {
	var code int
	cmd := cli.New(host(), version.String(), cli.Actions{
		Run: func(s *cli.Settings) (err error) {
			code, err = launch(s, std)
			return err
		},
		Check: func(s *cli.Settings, json bool) error { return check(std.out, s, json) },
	})
	cmd.SetArgs(args)
	cmd.SetOut(std.out)
	cmd.SetErr(std.err)
	if err := cmd.Execute(); err != nil {
		printError(std.err, err, cli.WantsJSON(args))
		return exitCode(err)
	}
	return code
}

func printError(w io.Writer, err error, asJSON bool) {
	if asJSON {
		// A failure to write an error can be told to nobody.
		_ = json.NewEncoder(w).Encode(map[string]string{"error": cli.OneLine(err)})
		return
	}
	fmt.Fprintf(w, "junction_run: %s\n", cli.OneLine(err))
}

func exitCode(err error) int {
	var usage *cli.UsageError
	var sig interrupted
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &sig):
		return 128 + int(sig)
	case errors.Is(err, libos.ErrNotFound):
		return exitNotFound
	case errors.Is(err, libos.ErrNotExecutable):
		return exitNotExecutable
	}
	return exitSetup
}

// host tells the command line about this process and machine.
func host() cli.Host {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "" // deleted, or not searchable: relative paths are refused
	}
	return cli.Host{
		Environ: os.Environ(),
		Cwd:     cwd,
		UID:     uint32(os.Getuid()),
		GID:     uint32(os.Getgid()),
		CPUs:    runtime.NumCPU(),
		NICs:    candidateNICs,
		Socket:  wire.SocketPath(),
		Monitor: monitorAnswers, Expected: monitorExpected,
	}
}
