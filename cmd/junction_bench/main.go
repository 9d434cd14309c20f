// Junction_bench is a developer's tool: it measures junction_run beside native
// programs and runsc, and shows it at work.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"junction/internal/usage"
	"junction/internal/version"
)

// exitInterrupted is the exit code after a signal.
const exitInterrupted = 130

// errIncomplete says that something could not be measured; what, is in the report.
var errIncomplete = errors.New("not everything could be measured; see NOT MEASURED above")

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code. The first signal ends the run in order; everything
// in the lab is removed.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cmd := newCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "junction_bench: interrupted; the lab is removed")
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "junction_bench:", err)
	return usage.ExitCode(err)
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "junction_bench",
		Short: "Measure and demonstrate junction_run in a lab of network namespaces",
		Long: `junction_bench runs servers in instances of junction_run, natively and in runsc,
in network namespaces that it makes and removes, and compares them. It needs
root and the packages that make deps installs.

Exit status: 0; 1 if something could not be measured; 2 for a mistake on the
command line; 130 if it was interrupted.`,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(demoCommand(), runCommand(), serverCommand(), switchCommand(), microCommand(), schedCommand())
	for _, c := range root.Commands() {
		c.Args = noArgs
		c.Flags().SortFlags = false
	}
	usage.Explain(root)
	root.AddCommand(actorCommand())
	return root
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected %q", strings.Join(args, " "))
	}
	return nil
}

// beside returns where the build puts a program, seen from this one's folder.
func beside(path ...string) string {
	self, err := os.Executable()
	if err != nil {
		return path[len(path)-1]
	}
	return filepath.Join(append([]string{filepath.Dir(self)}, path...)...)
}

// needProgram says what to do if a program has not been built.
func needProgram(flag, path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; build it with make, or name one with --%s", err, flag)
	}
	return path, nil
}
