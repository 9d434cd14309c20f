package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"junction/internal/usage"
)

// group is the RunE of a command that has only commands below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := ""
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", strings.Join(like, " or "))
	}
	return usage.Errorf("no command %q%s; see %s --help", args[0], hint, cmd.CommandPath())
}
