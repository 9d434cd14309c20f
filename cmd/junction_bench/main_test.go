package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
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
		{[]string{"server", "--only", "nosuchcase"}, exitUsage},
		{[]string{"switch", "--help"}, 0},
		{[]string{"switch", "--only", "nosuchcase"}, exitUsage},
		{[]string{"switch", "--junction-run", missing}, exitFailed},
		{[]string{"server", "--junction-run", missing}, exitFailed},
		{[]string{"run", "--frobnicate"}, exitUsage},
		{[]string{"run", "extra"}, exitUsage},
		{[]string{"run", "--only", "nosuchcase"}, exitUsage},
		{[]string{"run", "--rounds", "-1"}, exitUsage},
		{[]string{"frobnicate"}, exitUsage},
		{[]string{"run", "--junction-run", missing}, exitFailed},
		{[]string{"run", "--junction-run", "/bin/false", "--runsc", missing}, exitFailed},
		{[]string{"demo", "--junction-run", missing}, exitFailed},
		{[]string{"demo", "--driver", "pigeon"}, exitUsage},
		{[]string{"sched", "--cores", "0"}, exitUsage},
		{[]string{"sched", "--policies", "lottery"}, exitFailed},
		{[]string{"sched", "--policies", "sol,biff", "--loads", "0.5", "--requests", "1000"}, 0},
		{[]string{"sched", "--quick"}, exitUsage},
		{[]string{"sched", "--live", "--cores", "4"}, exitUsage},
		{[]string{"sched", "--live", "--only", "nosuchcase"}, exitUsage},
		{[]string{"sched", "--live", "--junction-run", missing}, exitFailed},
		{[]string{"actor", "hero"}, exitFailed},
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
