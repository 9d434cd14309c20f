// Command junction_ctl shows and steers a running junctiond.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := newCommand(os.Stdout).ExecuteContext(ctx); err != nil {
		printError(err, slices.Contains(os.Args, "--json"))
		os.Exit(1)
	}
}

func printError(err error, asJSON bool) {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if asJSON {
		// A failure to write an error can be told to nobody.
		_ = json.NewEncoder(os.Stderr).Encode(map[string]string{"error": text})
		return
	}
	fmt.Fprintf(os.Stderr, "junction_ctl: %s\n", text)
}
