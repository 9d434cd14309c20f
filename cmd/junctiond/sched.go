package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"junction/coresched/live"
)

// guardName is the hidden command that the monitor starts of itself.
const guardName = "sched-guard"

// guardCommand is the process that gives threads of core scheduling back what
// they had, should the monitor not do so itself.
func guardCommand() *cobra.Command {
	return &cobra.Command{
		Use: guardName, Short: "Guard threads of core scheduling; for junctiond itself", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return live.Guard(os.Stdin) },
	}
}

// schedOptions names the programs of core scheduling. They are looked for when
// they are needed.
func schedOptions() (o live.Options, err error) {
	self, err := os.Executable()
	if err != nil {
		return o, fmt.Errorf("find junctiond: %w", err)
	}
	o.Guard = []string{self, guardName}
	o.Policy = []string{filepath.Join(filepath.Dir(self), "junction_policy")}
	return o, nil
}
