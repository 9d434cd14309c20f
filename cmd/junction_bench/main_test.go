package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/usage"
)

func TestExitCodes(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, 0},
		{[]string{"run", "--help"}, 0},
		{[]string{"server", "--help"}, 0},
		{[]string{"server", "--only", "nosuchcase"}, usage.ExitWrong},
		{[]string{"switch", "--help"}, 0},
		{[]string{"switch", "--only", "nosuchcase"}, usage.ExitWrong},
		{[]string{"switch", "--junction-run", missing}, usage.ExitFailed},
		{[]string{"server", "--junction-run", missing}, usage.ExitFailed},
		{[]string{"run", "--frobnicate"}, usage.ExitWrong},
		{[]string{"run", "extra"}, usage.ExitWrong},
		{[]string{"run", "--only", "nosuchcase"}, usage.ExitWrong},
		{[]string{"run", "--rounds", "-1"}, usage.ExitWrong},
		{[]string{"frobnicate"}, usage.ExitWrong},
		{[]string{"run", "--junction-run", missing}, usage.ExitFailed},
		{[]string{"run", "--junction-run", "/bin/false", "--runsc", missing}, usage.ExitFailed},
		{[]string{"demo", "--junction-run", missing}, usage.ExitFailed},
		{[]string{"demo", "--driver", "pigeon"}, usage.ExitWrong},
		{[]string{"sched", "--cores", "0"}, usage.ExitWrong},
		{[]string{"sched", "--policies", "lottery"}, usage.ExitWrong},
		{[]string{"sched", "--policies", "sol", "--cores", "513"}, usage.ExitWrong},
		{[]string{"sched", "--policies", "sol,biff", "--loads", "0.5", "--requests", "1000"}, 0},
		{[]string{"sched", "--quick"}, usage.ExitWrong},
		{[]string{"sched", "--live", "--cores", "4"}, usage.ExitWrong},
		{[]string{"sched", "--live", "--only", "nosuchcase"}, usage.ExitWrong},
		{[]string{"sched", "--live", "--junction-run", missing}, usage.ExitFailed},
		{[]string{"actor", "hero"}, usage.ExitFailed},
	} {
		require.Equal(t, c.want, run(c.args), "%q", c.args)
	}
}

func TestHelpNamesCases(t *testing.T) {
	cmd := newCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"run", "--help"})
	require.NoError(t, cmd.Execute())
	require.Contains(t, out.String(), "startup, memory, redis, udp, bulk")
}

// Progress to something that is no terminal is whole lines.
func TestProgress(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	p := newProgress(w)
	p.show("one")
	p.show("two")
	p.end()
	require.NoError(t, w.Close())
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\n", out.String())
}
