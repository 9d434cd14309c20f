package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
)

// Runsc runs programs in gVisor's own runtime: platform systrap, and its default
// network, for which it takes the address from the NIC and opens a packet
// socket there. The host's files are the root, under an overlay in memory.
type Runsc struct {
	// Path of the runsc program.
	Path string
}

// container is the only one in its state directory.
const container = "bench"

// Name implements System.
func (Runsc) Name() string { return "runsc" }

func (r Runsc) prepare(l *lab.Lab, p Program) (*plan, error) {
	dir, err := os.MkdirTemp("", "junction-bench-runsc-")
	if err != nil {
		return nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	if err := writeBundle(dir, l, p); err != nil {
		return nil, errors.Join(err, remove())
	}
	undoAddr, err := giveAddr(l)
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	base := []string{
		r.Path, "--root", filepath.Join(dir, "state"), "--platform", "systrap",
		"--network", "sandbox", "--ignore-cgroups", "--overlay2", "root:memory",
	}
	runsc := func(args ...string) error { return runQuietly(append(base[:len(base):len(base)], args...)) }
	return &plan{
		argv:      append(base[:len(base):len(base)], "run", "--bundle", dir, container),
		terminate: func() error { return runsc("kill", container, "TERM") },
		mode:      func([]byte) (string, error) { return "systrap, network sandbox", nil },
		undo: joinUndo(
			func() error { return runsc("delete", "--force", container) },
			joinUndo(func() error { return ignoreGone(undoAddr()) }, remove),
		),
	}, nil
}

// ignoreGone: runsc has taken the address from the NIC already.
func ignoreGone(err error) error {
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func runQuietly(argv []string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, out)
	}
	return nil
}

// writeBundle writes an OCI bundle for the program.
func writeBundle(dir string, l *lab.Lab, p Program) error {
	text, err := json.Marshal(bundle(l, p))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
}

// bundle describes a container that sees the host's files and the lab's network.
func bundle(l *lab.Lab, p Program) specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"}
	return specs.Spec{
		Version: "1.0.0",
		Root:    &specs.Root{Path: "/"},
		Process: &specs.Process{
			Args: p.Argv, Env: os.Environ(), Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs"},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: l.Server.Path()},
		}},
	}
}
