// Package manpage writes the manual pages of a command.
package manpage

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Add adds to a command a hidden one, "man DIR", that writes its pages.
func Add(cmd *cobra.Command) {
	cmd.AddCommand(&cobra.Command{
		Use: "man DIR", Short: "Write the manual pages to a directory", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return write(cmd, args[0]) },
	})
}

func write(cmd *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// A fixed date: the same source gives the same pages.
	date := time.Unix(0, 0).UTC()
	return doc.GenManTree(cmd, &doc.GenManHeader{Section: "1", Manual: "Junction", Source: "junction", Date: &date}, dir)
}
