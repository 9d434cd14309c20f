package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// bothEngines are what tests of the engines themselves run under, whatever was asked for.
var bothEngines = []string{"inproc", "systrap"}

// outcome is how a case of testdata/conform ended.
type outcome struct {
	output string
	code   int
	killed bool // the process itself, by a signal
}

// TestConformance runs each case of testdata/conform on the host's own Linux
// and in instances, and expects the same output and the same end. What differs
// is in deviations, with its reason: a case that differs otherwise fails, and so
// does one that differs no more.
func TestConformance(t *testing.T) {
	program := compile(t, "conform")
	list, err := exec.Command(program, "list").Output()
	require.NoError(t, err)
	cases := strings.Fields(string(list))
	for name := range deviations {
		require.Contains(t, cases, name, "a deviation of no case")
	}
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			native := exec.Command(program, name)
			native.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			want := conform(t, native)
			require.NotContains(t, []int{-1, 97, 98, 99}, want.code, "the case itself went wrong on Linux: %s", want.output)
			want.killed = false // an instance tells by its exit code
			for _, engine := range bothEngines {
				t.Run(engine, func(t *testing.T) {
					d := deviations[name][engine]
					if d != nil && d.hangs {
						t.Skip("the program may not end, as known: " + d.why)
					}
					d.check(t, want, conform(t, command(isolated(engine), program, name)))
				})
			}
		})
	}
}

// TestConformancePatches expects that the cases' call sites are what the
// in-process engine patches: else TestConformance would show less than it says.
func TestConformancePatches(t *testing.T) {
	_, stderr, code := run(t, isolated("inproc", "--stats=json"), compile(t, "conform"), "registers")
	require.Zero(t, code)
	var stats struct {
		Spaces struct {
			Patched uint64 `json:"patched_calls"`
			Trapped uint64 `json:"trapped_calls"`
		} `json:"address_spaces"`
	}
	require.NoError(t, json.Unmarshal([]byte(stderr), &stats), stderr)
	// A thousand calls for each of seven shapes, four of which are patched after a while.
	require.Greater(t, stats.Spaces.Patched, uint64(3500))
	require.Greater(t, stats.Spaces.Trapped, uint64(3000))
}

// conform runs a case to its end.
func conform(t *testing.T, c *exec.Cmd) outcome {
	i := launch(t, c, c)
	code := i.exit()
	return outcome{i.stdout.String(), code, c.ProcessState.Sys().(syscall.WaitStatus).Signaled()}
}

// compile builds the C program of testdata/name, which uses testdata/probe.
func compile(t testing.TB, name string) string {
	t.Helper()
	program := filepath.Join(workDir(t), name)
	args := []string{"-O1", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread", "-o", program}
	for _, pattern := range []string{name + "/*.c", "probe/*.c", "probe/*.S"} {
		files, err := filepath.Glob("testdata/" + pattern)
		require.NoError(t, err)
		args = append(args, files...)
	}
	require.NoError(t, tool(need(t, "gcc"), args...))
	return program
}

// deviation is how an engine differs from Linux in one case.
type deviation struct {
	why string
	// replace are pairs of texts: what Linux says, and what the instance says
	// for it. The instance's output is Linux's with all pairs replaced.
	replace []string
	// instead is the instance's output when there is no replace.
	instead string
	code    int
	// varies: what comes out depends on time, or on the machine.
	varies bool
	// hangs: the program may not end.
	hangs bool
}

// check compares what an instance did with what Linux did. d is nil when they
// should be the same.
func (d *deviation) check(t *testing.T, want, got outcome) {
	switch {
	case d == nil:
		require.Equal(t, want, got)
	case d.varies:
		require.False(t, got.killed, "junction_run died")
		if got != want {
			t.Logf("differs from Linux, as known: %s", d.why)
		}
	default:
		require.NotEqual(t, want, got, "this is as on Linux now: remove the row from deviations")
		require.Equal(t, d.expected(want), got)
		t.Logf("differs from Linux, as known: %s", d.why)
	}
}

func (d *deviation) expected(want outcome) outcome {
	if d.replace == nil {
		return outcome{output: d.instead, code: d.code}
	}
	return outcome{output: strings.NewReplacer(d.replace...).Replace(want.output), code: d.code}
}
