// Command junctiond is the monitor of server mode.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"junction/internal/usage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "junctiond: %s\n", strings.Join(strings.Fields(err.Error()), " "))
		os.Exit(usage.ExitCode(err))
	}
}
