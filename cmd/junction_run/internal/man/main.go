// Command man writes the manual pages of junction_run into a directory, its
// only argument.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"junction/cmd/junction_run/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments; give the directory for the pages", len(args))
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	// A fixed date: the same source gives the same pages.
	date := time.Unix(0, 0).UTC()
	header := &doc.GenManHeader{Section: "1", Manual: "Junction", Source: "junction", Date: &date}
	cmd := cli.New(cli.Host{}, "", cli.Actions{})
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() != "bool" {
			f.DefValue = f.Value.Type() // a page prints the default, and no name, behind "--flag="
		}
	})
	return doc.GenManTree(cmd, header, args[0])
}
