package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/coresched/policies"
)

func runCtl(t *testing.T, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := newCommand(&out)
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// The JSON has the fields of the contract, no more and no fewer.
func TestSimJSON(t *testing.T) {
	for _, p := range policies.Names() {
		args := []string{"sched", "sim", "--policy", p, "--workload", "rocksdb", "--load", "0.5", "--seed", "3", "--requests", "20000", "--json"}
		out, err := runCtl(t, args...)
		require.NoError(t, err)
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		require.Len(t, got, 9)
		require.EqualValues(t, 1, got["schema"])
		require.Equal(t, p, got["policy"])
		require.Equal(t, "rocksdb", got["workload"])
		require.EqualValues(t, 0.5, got["load"])
		require.EqualValues(t, 3, got["seed"])
		require.EqualValues(t, 20000, got["completed"])
		require.InDelta(t, 0.5, got["utilisation"], 0.1)
		for _, kind := range []string{"short", "long"} {
			q := got[kind].(map[string]any)
			require.Len(t, q, 3)
			require.LessOrEqual(t, q["p50_us"], q["p99_us"])
			require.LessOrEqual(t, q["p99_us"], q["p999_us"])
			require.Positive(t, q["p50_us"])
		}
		again, err := runCtl(t, args...)
		require.NoError(t, err)
		require.Equal(t, out, again)
	}
}

func TestSimFile(t *testing.T) {
	dir := t.TempDir()
	file, trace := filepath.Join(dir, "requests"), filepath.Join(dir, "trace")
	require.NoError(t, os.WriteFile(file, []byte("0 10\n5 10 long\n40 10\n"), 0o600))
	out, err := runCtl(t, "sched", "sim", "--policy", "sol", "--workload", file, "--cores", "1", "--cost", "free", "--trace", trace)
	require.NoError(t, err)
	require.Contains(t, out, "completed 3")
	events, err := os.ReadFile(trace)
	require.NoError(t, err)
	require.Equal(t, 3, bytes.Count(events, []byte(" DONE ")))
}

// TestSchedCompletion: what a shell offers for policies' names and the like.
func TestSchedCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"sched sim --policy":        "shinjuku",
		"sched sim --cost":          "stock",
		"sched sim --workload":      "rocksdb",
		"sched policy set work":     "fifo-percpu",
		"sched enclave show work":   ":4", // nothing, and no files
		"sched policy set work sol": ":4",
		"sched --socket /none push": ":4",
	} {
		out, err := runCtl(t, append([]string{"__complete"}, append(strings.Fields(line), "")...)...)
		require.NoError(t, err)
		require.Contains(t, strings.Split(out, "\n"), want, line)
	}
	out, err := runCtl(t, "sched", "policy", "set", "--help")
	require.NoError(t, err)
	require.Contains(t, out, "slice 30µs")
}

func TestSimErrors(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"--policy", "lottery", "--workload", "exp", "--load", "0.5"},
		{"--policy", "sol", "--workload", "nothing", "--load", "0.5"},
		{"--policy", "sol", "--workload", "exp"},
		{"--policy", "sol", "--workload", "exp", "--load", "-1"},
		{"--policy", "sol", "--workload", "exp", "--load", "0.5", "--cores", "0"},
		{"--policy", "sol", "--workload", "exp", "--load", "0.5", "--cores", "513"},
		{"--policy", "sol", "--workload", "exp", "--load", "0.5", "--cost", "no"},
		{"--policy", "sol", "--workload", "exp", "--load", "0.5", "--param", "slice=1us"},
		{"--policy", "sol", "--workload", "exp", "--load", "0.5", "--instances", "5000"},
		{"--policy", "sol", "--workload", "exp", "--load", "0.5", "--requests", "0"},
	} {
		_, err := runCtl(t, append([]string{"sched", "sim"}, args...)...)
		require.Error(t, err, "%v", args)
	}
}
