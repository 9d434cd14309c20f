package plugin_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requirements reads module paths and versions from a go.mod.
func requirements(t *testing.T, path string) map[string]string {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && strings.HasPrefix(f[1], "v") {
			all[f[0]] = f[1]
		}
	}
	return all
}

// The example builds as it is: its module wants what ours does. If this fails:
// (cd coresched/plugin/example && go mod tidy).
func TestExampleWantsTheSame(t *testing.T) {
	ours, example := requirements(t, "../../go.mod"), requirements(t, "example/go.mod")
	require.NotEmpty(t, example)
	for path, version := range example {
		if want, ok := ours[path]; ok {
			require.Equal(t, want, version, path)
		}
	}
}
