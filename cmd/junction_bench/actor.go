package main

import (
	"github.com/spf13/cobra"

	"junction/internal/bench/actors"
)

// actorCommand is the processes that sched --live starts of this program.
func actorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "actor ROLE", Short: "Play a role; for sched --live itself", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error { return actors.Run(args) },
	}
}
