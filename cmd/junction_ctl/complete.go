package main

import (
	"github.com/spf13/cobra"

	"junction/coresched/policies"
)

// completeEnclave offers the names of enclaves for a first argument, and what next
// offers after it.
func (c *ctl) completeEnclave(next cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, part string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(args) > 0 {
			return next(cmd, args[1:], part)
		}
		top, err := c.schedLook(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, e := range top.Enclaves {
			names = append(names, e.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePolicy offers names of policies for a first argument, or a program's file.
func completePolicy(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return policies.Names(), cobra.ShellCompDirectiveDefault
}
