// Command junction_ctl shows and steers a running junctiond.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"junction/internal/usage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := newCommand(os.Stdout).ExecuteContext(ctx); err != nil {
		code := usage.ExitCode(err)
		var exit *exitError
		if errors.As(err, &exit) {
			code, err = exit.code, exit.err
		}
		if err != nil {
			printError(err, slices.Contains(os.Args, "--json"))
		}
		os.Exit(code)
	}
}

// exitError is an exit code other than 1, with what to say, if anything.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d: %v", e.code, e.err) }

func printError(err error, asJSON bool) {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if asJSON {
		// A failure to write an error can be told to nobody.
		_ = json.NewEncoder(os.Stderr).Encode(map[string]string{"error": text})
		return
	}
	fmt.Fprintf(os.Stderr, "junction_ctl: %s\n", text)
}
