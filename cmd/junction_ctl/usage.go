package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// explain has wrong arguments and flags of cmd and all below it answered with
// what is right.
func explain(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(at *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, at.CommandPath())
	})
	for _, sub := range cmd.Commands() {
		explain(sub)
	}
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(at *cobra.Command, args []string) error {
		if err := check(at, args); err != nil {
			return fmt.Errorf("%w; usage: %s", err, at.UseLine())
		}
		return nil
	}
}

// group is the RunE of a command that has only commands below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := ""
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", strings.Join(like, " or "))
	}
	return fmt.Errorf("no command %q%s; see %s --help", args[0], hint, cmd.CommandPath())
}
