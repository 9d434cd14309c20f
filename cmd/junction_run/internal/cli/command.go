package cli

import (
	"cmp"

	"github.com/spf13/cobra"
)

const long = `junction_run runs an unmodified Linux program in an instance: one host process
that holds a library operating system, with TCP/IP of its own, and the program.

CONFIG is a configuration file of Junction or Caladan, lines of "key value".
Flags go before its settings. Everything after -- is the program's.

In direct mode the instance takes queues of a NIC, and no packet passes
through the host's TCP/IP. The host's files are visible read-only under a
layer in memory that takes all changes; --rw makes directories writable.

Exit status: the program's own; 128+n if signal n killed it; 127 if it does not
exist, 126 if it cannot be executed; 2 for a mistake on the command line or in
CONFIG; 1 if the instance could not be set up.`

const examples = `  junction_run -- uname -a
  junction_run --nic veth0 --ip 198.18.0.2/24 --gateway 198.18.0.1 -- redis-server --protected-mode no
  junction_run server.config --nic eth1:2 --stats -- /usr/sbin/nginx
  junction_run --check --nic veth0
  junction_run completion bash > /etc/bash_completion.d/junction_run`

// New returns the command. It reads what it needs of host and calls one of the actions.
func New(host Host, version string, act Actions) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:           "junction_run [CONFIG] [flags] -- PROGRAM [ARGS...]",
		Short:         "Run an unmodified Linux program in a library OS on its own NIC queues",
		Long:          long,
		Example:       examples,
		Version:       version,
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true, // the caller prints them
		SilenceUsage:  true,
		// Without subcommands no program or file name can be taken for one.
		CompletionOptions:     cobra.CompletionOptions{},
		DisableFlagsInUseLine: true,
		DisableAutoGenTag:     true, // the manual page is the same whenever it is made
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.check {
				if len(args) > 0 {
					return usagef("--check runs nothing; remove %q", args[0])
				}
				return act.Check(&Settings{NIC: f.nic, Queues: f.queues, Driver: f.driver, MTU: f.mtu, Engine: cmp.Or(f.engine, "auto")}, f.json)
			}
			s, err := f.settings(host, args, cmd.ArgsLenAtDash())
			if err != nil {
				return err
			}
			return act.Run(s)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	f.register(cmd.Flags())
	complete(cmd, host)
	return cmd
}

// complete registers the completions of flags that take one of a few words or a path.
func complete(cmd *cobra.Command, host Host) {
	for name, words := range enums {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
	}
	must(cmd.RegisterFlagCompletionFunc("nic", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return host.NICs(), cobra.ShellCompDirectiveNoFileComp
	}))
	for _, name := range []string{"rw", "rootfs", "cwd"} {
		must(cmd.MarkFlagDirname(name))
	}
	must(cmd.MarkFlagFilename("pcap"))
}

// must panics on errors that only a mistake in this package can cause, on every start.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
