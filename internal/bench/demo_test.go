package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"junction/internal/lab"
)

// TestMain checks that no goroutine, process or lab of any test remains.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if left, _ := filepath.Glob(fmt.Sprintf("/run/netns/jx%d-*", os.Getpid())); len(left) > 0 {
			println("left behind:", strings.Join(left, " "))
			code = 1
		}
		os.Exit(code)
	}))
}

// buildProgram builds a package of the module in folder into a temporary one.
func buildProgram(t *testing.T, folder, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-C", folder, "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// The demonstration as make run shows it, only shorter.
func TestDemo(t *testing.T) {
	d, err := RunDemo(context.Background(), DemoOptions{
		JunctionRun: buildProgram(t, "../..", "./cmd/junction_run"), Driver: "afxdp", Spin: Spin, Quick: true,
		Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	require.Len(t, d.Rows, 3)
	for _, row := range d.Rows {
		require.Positive(t, row.Junction.Requests, row.Load)
		require.Positive(t, row.Junction.PerSecond, row.Load)
		require.Zero(t, row.Junction.Errors, row.Load)
		require.Zero(t, row.Native.Errors, row.Load)
		require.Positive(t, row.Native.PerSecond, row.Load)
	}
	require.Contains(t, d.Mode, "direct, systrap, afxdp, native")
	var b bytes.Buffer
	require.NoError(t, d.WriteTable(&b))
	require.Contains(t, b.String(), "redis GET")
	t.Log(b.String())
}

// All systems of a case side by side; runsc is built from its own module.
func TestRunAllSystems(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: building runsc takes a minute")
	}
	r, err := Run(context.Background(), Options{
		JunctionRun: buildProgram(t, "../..", "./cmd/junction_run"),
		Runsc:       buildProgram(t, "runsc", "gvisor.dev/gvisor/runsc"),
		Quick:       true, Only: "startup", Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	c := r.Cases[0]
	require.Empty(t, c.Errors)
	for _, m := range c.Metrics {
		require.Len(t, m.Systems, 4, m.Name)
		for _, s := range m.Systems {
			require.Positive(t, s.Median, "%s %s", m.Name, s.System)
			require.NotEmpty(t, c.Modes[s.System])
		}
	}
}

// runsc must come from the gVisor that instances are made of.
func TestRunscVersion(t *testing.T) {
	version := func(folder string) string {
		out, err := exec.Command("go", "list", "-C", folder, "-m", "-f", "{{.Version}}", "gvisor.dev/gvisor").CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	require.Equal(t, version("../.."), version("runsc"))
}

func TestBundle(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	spec := bundle(l, Program{Argv: []string{"/bin/true", "x"}})
	require.Equal(t, []string{"/bin/true", "x"}, spec.Process.Args)
	network := spec.Linux.Namespaces[len(spec.Linux.Namespaces)-1]
	require.Equal(t, l.Server.Path(), network.Path, "runsc takes the address from the lab's NIC")
}
