package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"junction/internal/bench/clients"
	"junction/internal/bench/load"
	"junction/internal/lab"
	"junction/switch/protocol"
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

// buildJunctionRun builds junction_run alone.
func buildJunctionRun(t *testing.T) string {
	t.Helper()
	return buildCommands(t, "junction_run")
}

// buildCommands builds commands by the Makefile, which knows how they must be
// linked, and returns where the first one is.
func buildCommands(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("make", "-C", "../..", "build", "BIN="+dir, "COMMANDS="+strings.Join(names, " ")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return filepath.Join(dir, names[0])
}

// The demonstration as make run shows it, only shorter.
func TestDemo(t *testing.T) {
	d, err := RunDemo(context.Background(), DemoOptions{
		JunctionRun: buildCommands(t, "junction_run", "junctiond", "netserver"), Driver: "afxdp", Spin: Spin, Quick: true,
		Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	require.Len(t, d.Rows, 3)
	for _, row := range d.Rows {
		require.Len(t, row.Results, len(d.Systems))
		for _, result := range row.Results {
			require.Positive(t, result.Requests, row.Load)
			require.Positive(t, result.PerSecond, row.Load)
		}
	}
	n, first := d.Errors()
	require.Zero(t, n, "%v", first)
	require.Equal(t, []string{"junction-afxdp-spin-systrap", "junction-afxdp-spin-inproc", "native"}, d.Systems)
	require.Len(t, d.Modes, 3)
	require.Contains(t, d.Modes[0], "direct, systrap, afxdp, native")
	require.Contains(t, d.Modes[1], "direct, inproc, afxdp, native")
	require.Contains(t, d.Modes[2], "server, inproc")
	require.Contains(t, d.Modes[2], "uplink afxdp, native")
	requireSwitched(t, d)
	var b bytes.Buffer
	require.NoError(t, d.WriteTable(&b))
	require.Contains(t, b.String(), "redis GET")
	require.Contains(t, b.String(), "server to direct")
	t.Log(b.String())
}

// requireSwitched: each server was in each mode, and the clients went on.
func requireSwitched(t *testing.T, d *Demo) {
	t.Helper()
	require.Len(t, d.Switched, len(demoLoads))
	for _, s := range d.Switched {
		var names []string
		for _, p := range s.Phases {
			names = append(names, p.Name)
			if !strings.HasPrefix(p.Name, "switch") {
				require.Positive(t, p.Result.Requests, "%s %s", s.Load, p.Name)
			}
		}
		require.Equal(t, []string{"server", "switch to direct", "direct", "switch to server", "server again", "native"}, names)
		require.GreaterOrEqual(t, len(s.Switches), 2)
		require.Equal(t, protocol.Server, s.Switches[len(s.Switches)-1].Mode)
		for _, r := range s.Switches {
			require.Zero(t, r.Duplicates)
		}
	}
}

// Requests that fail are counted wherever they do.
func TestDemoErrors(t *testing.T) {
	n, first := new(Demo).Errors()
	require.Zero(t, n)
	require.NoError(t, first)
	d := Demo{
		Rows:     []DemoRow{{Results: []clients.Result{{Errors: 1}, {Errors: 2}}}},
		Switched: []DemoSwitched{{Phases: []DemoPhase{{}, {}}}},
	}
	why := errors.New("why")
	d.Switched[0].Phases[1].addErrors(load.Phase{Errors: 4, First: why})
	d.Switched[0].Phases[1].addErrors(load.Phase{Errors: 8, First: errors.New("another")})
	n, first = d.Errors()
	require.Equal(t, uint64(15), n)
	require.Equal(t, why, first)
}

// All systems of a case side by side; runsc is built from its own module.
func TestRunAllSystems(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: building runsc takes a minute")
	}
	r, err := Network.Run(context.Background(), Options{
		JunctionRun: buildJunctionRun(t),
		Runsc:       buildProgram(t, "runsc", "gvisor.dev/gvisor/runsc"),
		Quick:       true, Only: "startup", Progress: func(what string) { t.Log(what) },
	})
	require.NoError(t, err)
	c := r.Cases[0]
	require.Empty(t, c.Errors)
	require.Contains(t, c.Modes, "runsc")
	for _, m := range c.Metrics {
		require.Len(t, m.Systems, len(c.Modes), m.Name)
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

// needScheduler skips where threads cannot be watched for reasons that are not ours.
func needScheduler(t *testing.T) {
	t.Helper()
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != "pid:[4026531836]" {
		t.Skip("this is a PID namespace of its own; BPF programs see the host's numbers")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF):", err)
	}
}
