// Command netserver is the network server. junctiond starts it and replaces it
// when it ends.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"junction/internal/usage"
	"junction/internal/version"
)

const long = `netserver forwards frames between a NIC and the packet rings of instances. It
takes its orders from junctiond, which starts it and replaces it when it ends;
nobody else need run it.`

func main() {
	var socket string
	cmd := &cobra.Command{
		Use: "netserver --monitor SOCKET", Short: "Forward frames between a NIC and instances", Long: long,
		Version: version.String(), Args: cobra.NoArgs,
		SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), socket, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
	cmd.Flags().StringVar(&socket, "monitor", "", "the monitor's socket")
	if err := cmd.MarkFlagRequired("monitor"); err != nil {
		panic(err) // a mistake in this file
	}
	usage.Explain(cmd)
	signal.Ignore(unix.SIGPIPE) // who reads our messages may end with the monitor
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "netserver: %s\n", strings.Join(strings.Fields(err.Error()), " "))
		os.Exit(usage.ExitCode(err))
	}
}
