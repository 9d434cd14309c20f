package usage

import (
	"errors"
	"io"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// TestExitCodes: what is wrong on the command line is told from what fails.
func TestExitCodes(t *testing.T) {
	failure := errors.New("broken")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"sub"}, 0, ""},
		{[]string{"sub", "more"}, ExitWrong, "usage: top sub"},
		{[]string{"sub", "--bogus"}, ExitWrong, "see top sub --help"},
		{[]string{"sub", "--number", "x"}, ExitWrong, "see top sub --help"},
		{[]string{"--bogus"}, ExitWrong, "see top --help"},
		{[]string{"need"}, ExitWrong, "usage: top need"},
		{[]string{"need", "--it", "1"}, 0, ""},
		{[]string{"fail"}, ExitFailed, "broken"},
		{[]string{"refuse"}, ExitWrong, "broken"},
	} {
		top := &cobra.Command{Use: "top", SilenceErrors: true, SilenceUsage: true}
		sub := &cobra.Command{Use: "sub", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }}
		sub.Flags().Int("number", 0, "")
		need := &cobra.Command{Use: "need", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }}
		need.Flags().Int("it", 0, "")
		require.NoError(t, need.MarkFlagRequired("it"))
		top.AddCommand(sub, need,
			&cobra.Command{Use: "fail", RunE: func(*cobra.Command, []string) error { return failure }},
			&cobra.Command{Use: "refuse", RunE: func(*cobra.Command, []string) error { return Wrap(failure) }})
		Explain(top)
		top.SetArgs(c.args)
		top.SetOut(io.Discard)
		err := top.Execute()
		require.Equal(t, c.code, ExitCode(err), "%v: %v", c.args, err)
		if c.says != "" {
			require.ErrorContains(t, err, c.says)
		}
	}
	require.NoError(t, Wrap(nil))
	require.ErrorIs(t, Wrap(failure), failure)
}
