package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// binary is junction_run, built for the tests that need a process of its own:
// a process boots one instance.
var binary string

// sentrys are goroutines that the Sentry starts for the life of the process:
// a boot that fails, because the NIC does, leaves them.
var sentrys = []goleak.Option{
	goleak.IgnoreAnyFunction("gvisor.dev/gvisor/pkg/sentry/kernel.(*Timekeeper).startUpdater.func1"),
	goleak.IgnoreAnyFunction("gvisor.dev/gvisor/pkg/sentry/pgalloc.(*MemoryFile).releaserMain"),
	goleak.IgnoreAnyFunction("gvisor.dev/gvisor/pkg/sentry/platform/systrap.controlFastPath"),
	goleak.IgnoreAnyFunction("gvisor.dev/gvisor/pkg/sentry/platform/systrap.newSubprocess.func1"),
}

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces and change users: run them as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "junction_run-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(sentrys...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
		return 1
	}
	return code
}

// build builds the binary where other users can execute it.
func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	binary = filepath.Join(dir, "junction_run")
	// By the Makefile, which knows how it must be linked.
	c := exec.Command("make", "-C", "../..", "build", "BIN="+dir, "COMMANDS=junction_run")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	return nil
}
