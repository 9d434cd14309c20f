// Package e2e tests junction_run from end to end: unmodified programs inside
// instances, driven by real clients over a veth pair, and what users see of the
// command itself: files, terminals, signals, exit codes and messages.
//
// The tests need root and the programs that `make deps` installs. Environment:
//
//	JUNCTION_RUN         the junction_run to test; built from the tree by default
//	JUNCTION_E2E_ENGINE  engines to test, separated by commas; default inproc,systrap
//	JUNCTION_E2E_DRIVER  drivers to test, separated by commas; default afxdp,tap,server
//	JUNCTION_E2E_KILLS   how often processes are killed; default 20
//	JUNCTION_E2E_SWITCHES  how often modes are switched each way; default 10
//	JUNCTION_STRESS      how long TestStress runs, as 10m; default 40s
package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// Binaries under test, set by TestMain.
var (
	junctionRun string
	guest       string // test/e2e/guest, programs that run inside an instance
	commands    string // the folder of the other commands: junctiond and so on
)

// engines and drivers span the matrix.
var (
	engines = strings.Split(cmp.Or(os.Getenv("JUNCTION_E2E_ENGINE"), "inproc,systrap"), ",")
	drivers = strings.Split(cmp.Or(os.Getenv("JUNCTION_E2E_DRIVER"), "afxdp,tap,"+serverMode), ",")
)

// serverMode is, among the drivers, a network server that has the NIC.
const serverMode = "server"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if server := os.Getenv(steppingEnv); server != "" {
		if err := steppingMonitor(server, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "monitor:", err)
			return 1
		}
		return 0
	}
	dir, err := setUp()
	defer os.RemoveAll(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "e2e: goroutines left behind:", err)
		return 1
	}
	return code
}

// setUp builds what the tests need in a directory that anybody may read.
func setUp() (dir string, err error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("these tests make network namespaces: run them as root")
	}
	if dir, err = os.MkdirTemp("", "junction-e2e-"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	guest = filepath.Join(dir, "guest")
	if err := tool("go", "build", "-o", guest, "junction/test/e2e/guest"); err != nil {
		return dir, err
	}
	commands = dir
	// By the Makefile, which knows how it must be linked.
	if junctionRun = os.Getenv("JUNCTION_RUN"); junctionRun == "" {
		junctionRun = filepath.Join(dir, "junction_run")
		return dir, tool("make", "-C", "../..", "build", "BIN="+dir, "COMMANDS=junction_run junctiond netserver junction_ctl junction_policy")
	}
	if junctionRun, err = filepath.Abs(junctionRun); err != nil {
		return dir, err
	}
	return dir, tool("make", "-C", "../..", "build", "BIN="+dir, "COMMANDS=junctiond netserver junction_ctl junction_policy")
}

// tool runs a build tool.
func tool(name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", c, err, out)
	}
	return nil
}

// need returns the path of a program that make deps installs.
func need(t testing.TB, program string) string {
	t.Helper()
	// Debian's own first: version managers put shims of the same names before it.
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		if p := filepath.Join(dir, program); isExecutable(p) {
			return p
		}
	}
	t.Fatalf("%s is not installed: run make deps", program)
	return ""
}

func isExecutable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// variant is one point of the matrix.
type variant struct {
	engine, driver string
	uplink         string // in server mode: the network server's driver; default afxdp
}

// matrix runs f as a subtest for each engine and driver.
func matrix(t *testing.T, f func(t *testing.T, v variant)) {
	for _, e := range engines {
		for _, d := range drivers {
			t.Run(e+"/"+d, func(t *testing.T) { f(t, variant{engine: e, driver: d}) })
		}
	}
}

// onNIC is matrix for what concerns instances with NIC queues of their own.
func onNIC(t *testing.T, f func(t *testing.T, v variant)) {
	for _, e := range engines {
		for _, d := range drivers {
			if d != serverMode {
				t.Run(e+"/"+d, func(t *testing.T) { f(t, variant{engine: e, driver: d}) })
			}
		}
	}
}

// eachEngine runs f as a subtest for each engine.
func eachEngine(t *testing.T, f func(t *testing.T, engine string)) {
	for _, e := range engines {
		t.Run(e, func(t *testing.T) { f(t, e) })
	}
}

// skipLong skips a test that takes long when -short is given.
func skipLong(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("long test: run without -short")
	}
}
