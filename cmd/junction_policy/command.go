package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"junction/coresched/plugin"
	"junction/coresched/policies"
	"junction/internal/manpage"
	"junction/internal/usage"
	"junction/internal/version"
)

var long = `junction_policy runs one policy of core scheduling in a process of its own. The
monitor starts and supervises it (by hashicorp/go-plugin); it talks to it through
shared memory. Started by hand it says so and ends.

A policy of your own is a program of some fifty lines: see
coresched/plugin/example in the source.

Policies, with parameters and what they are unless given by --param:

` + policies.Help()

const example = `  junction_policy --list
  junction_policy shinjuku --param slice=10us`

func newCommand() *cobra.Command {
	var (
		params     []string
		spin       time.Duration
		list, json bool
	)
	cmd := &cobra.Command{
		Use: "junction_policy NAME [flags]", Short: "Run a policy of core scheduling", Long: long, Example: example,
		Version: version.String(), Args: cobra.MaximumNArgs(1), ValidArgs: policies.Names(),
		SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if list {
				return printNames(cmd, json)
			}
			if len(args) == 0 {
				return usage.Errorf("which policy? Take one of %s", strings.Join(policies.Names(), ", "))
			}
			return serve(args[0], params, spin)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&params, "param", nil, "parameter of the policy, such as slice=30us; repeatable")
	fs.DurationVar(&spin, "spin", 0, "look for work this long before sleeping; for a core of its own")
	fs.BoolVar(&list, "list", false, "print the names of all policies, then exit")
	fs.BoolVar(&json, "json", false, "with --list: as JSON")
	manpage.Add(cmd)
	usage.Explain(cmd)
	return cmd
}

func serve(name string, texts []string, spin time.Duration) error {
	params, err := policies.ParseParams(texts)
	if err != nil {
		return usage.Wrap(err)
	}
	p, err := policies.New(name, params)
	if err != nil {
		return usage.Wrap(err)
	}
	if spin < 0 {
		return usage.Errorf("--spin %v: take 0 or more", spin)
	}
	plugin.Serve(p, plugin.Options{Spin: spin})
	return nil
}

func printNames(cmd *cobra.Command, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return json.NewEncoder(out).Encode(struct {
			Schema   int      `json:"schema"`
			Policies []string `json:"policies"`
		}{1, policies.Names()})
	}
	_, err := fmt.Fprintln(out, strings.Join(policies.Names(), "\n"))
	return err
}
