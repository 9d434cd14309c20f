package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInprocServes is one server from start to end in the engine that is not
// the default yet.
func TestInprocServes(t *testing.T) {
	require.Equal(t, "ok\n", mustRun(t, isolated("inproc"), "sh", "-c", "(echo o; echo k) | tr -d '\\n' && echo"))
	_, stderr, code := run(t, isolated("inproc", "--stats=json"), "sh", "-c", "exit 5")
	require.Equal(t, 5, code)
	require.Contains(t, stderr, `"engine":"inproc"`)
}
