package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/libos"
)

// inProcess runs the command line in this process, which suits those that boot nothing.
func inProcess(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	std := stdio{in: os.Stdin, out: tempFile(t), err: tempFile(t)}
	code = run(args, std)
	return readAll(t, std.out), readAll(t, std.err), code
}

func tempFile(t *testing.T) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func readAll(t *testing.T, f *os.File) string {
	data, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	return string(data)
}

// requireError checks that stderr is one line that contains want.
func requireError(t *testing.T, stderr, want string) {
	t.Helper()
	require.True(t, strings.HasPrefix(stderr, "junction_run: "), stderr)
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	require.Contains(t, stderr, want)
}

func TestErrorsBeforeAnythingIsOpened(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "bad.config")
	require.NoError(t, os.WriteFile(file, []byte("\nhost_adr 198.18.0.2\n"), 0o600))
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"", 2, "no program given"},
		{"true", 2, "no -- before the program"},
		{"--bogus -- true", 2, "unknown flag: --bogus; see junction_run --help"},
		{"--mode direct -- true", 2, "--mode direct needs a NIC: add --nic IF, or start junctiond; there "},
		{"--env A -- true", 2, `--env "A": accepted: KEY=VALUE`},
		{"--ip x -- true", 2, `--ip "x": accepted: an address with its prefix length`},
		{"--ip 198.18.0.2 -- true", 2, "has no prefix length"},
		{"--nic a --ip 198.18.0.2/24 --ip 198.18.0.2/24 -- true", 2, "this address is given twice"},
		{file + " -- true", 2, file + `:2: unknown key "host_adr"; did you mean "host_addr"?`},
		{dir + " -- true", 1, dir + ": is a directory"},
		{dir + "/none -- true", 1, dir + "/none: cannot open the configuration file: no such file or directory"},
		{"--rw " + dir + "/none -- true", 1, "--rw " + dir + "/none: no such directory; create it first"},
		{"--rw " + file + " -- true", 1, "--rw " + file + ": not a directory"},
		{"--rootfs " + file + "/x -- true", 1, "--rootfs " + file + "/x: not a directory"},
		{"--engine systrap --nic junction-none --driver afxdp --ip 198.18.0.2/24 --pcap " + dir + "/none/x -- true", 1, "--pcap: open " + dir + "/none/x: no such file or directory"},
	} {
		stdout, stderr, code := inProcess(t, strings.Fields(tc.args)...)
		require.Equal(t, tc.code, code, tc.args)
		require.Empty(t, stdout, tc.args)
		requireError(t, stderr, tc.want)
	}
}

func TestErrorAsJSON(t *testing.T) {
	for _, args := range []string{"--json --mode direct -- true", "--bogus --json -- true", "--log json --rw /nonexistent -- true"} {
		_, stderr, code := inProcess(t, strings.Fields(args)...)
		require.NotZero(t, code)
		var got struct{ Error string }
		require.NoError(t, json.Unmarshal([]byte(stderr), &got), stderr)
		require.NotEmpty(t, got.Error)
	}
}

func TestVersion(t *testing.T) {
	stdout, stderr, code := inProcess(t, "--version")
	require.Zero(t, code)
	require.Empty(t, stderr)
	require.Regexp(t, `^junction_run version \S+ go1\.\S+\n$`, stdout)
}

func TestExitCode(t *testing.T) {
	for err, want := range map[error]int{
		errors.New("x"):                                      1,
		fmt.Errorf("p: %w", libos.ErrNotFound):               127,
		fmt.Errorf("p: %w", libos.ErrNotExecutable):          126,
		fmt.Errorf("p: %w", interrupted(15)):                 143,
		errors.Join(interrupted(2), errors.New("not ended")): 130,
	} {
		require.Equal(t, want, exitCode(err), err)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	require.NoError(t, writeTable(&b, map[string]any{"b": uint64(1) << 63, "a": map[string]any{"x": 1.5, "y": "z"}, "c": []string{"p", "q"}}))
	require.Equal(t, "a.x  1.5\na.y  z\nb    9223372036854775808\nc    [p q]\n", b.String())
}
