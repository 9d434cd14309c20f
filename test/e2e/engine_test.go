package e2e

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEngines runs, under every engine that can be asked for, a program that
// compares its registers and memory while it is signalled and forks, with the
// libOS's own garbage collector hard at work.
func TestEngines(t *testing.T) {
	program := filepath.Join(t.TempDir(), "stress")
	require.NoError(t, tool(need(t, "gcc"), "-O2", "-Wall", "-pthread", "-o", program, "testdata/stress.c"))
	for _, engine := range []string{"systrap", "inproc"} {
		t.Run(engine, func(t *testing.T) {
			c := command(isolated(engine), program, "5")
			c.Env = append(c.Environ(), "GOGC=5")
			i := launch(t, c, c)
			require.Zero(t, i.exit())
			require.Regexp(t, `^ok calls=\d+ faults=\d+ signals=\d+ forks=\d+\n$`, i.stdout.String())
			t.Log(i.stdout.String())
		})
	}
}

// TestInprocServes is one server from start to end in the engine that is not
// the default yet.
func TestInprocServes(t *testing.T) {
	require.Equal(t, "ok\n", mustRun(t, isolated("inproc"), "sh", "-c", "(echo o; echo k) | tr -d '\\n' && echo"))
	_, stderr, code := run(t, isolated("inproc", "--stats=json"), "sh", "-c", "exit 5")
	require.Equal(t, 5, code)
	require.Contains(t, stderr, `"engine":"inproc"`)
}
