package engine

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of the engines: this package's, and gVisor's, which keeps programs in
// other processes.
const (
	Inproc  = "inproc"
	Systrap = "systrap"
)

// Need is something of the host that an engine uses.
type Need struct {
	// Name is a word for it, in snake_case.
	Name string
	// Err says what is missing and what to do, and is nil if nothing is.
	Err error
}

// Probe tells what keeps this host, or this binary, from running the named
// engine, and returns nil if nothing does. It changes nothing that a later
// start of the engine does not.
func Probe(name string) error {
	for _, n := range Needs(name) {
		if n.Err != nil {
			return n.Err
		}
	}
	return nil
}

// Needs looks for all that the named engine needs of the host.
func Needs(name string) []Need {
	switch name {
	case Inproc:
		return inprocNeeds()
	case Systrap:
		return []Need{{"ptrace", probePtrace()}, {"seccomp_trap", probeAction(unix.SECCOMP_RET_TRAP)}}
	}
	return []Need{{"name", fmt.Errorf("there is no engine %q; choose %s or %s", name, Inproc, Systrap)}}
}

// Extras looks for what the named engine can do without, but not as well.
func Extras(name string) []Need {
	if name == Inproc {
		return inprocExtras()
	}
	return nil
}

// yamaScope is the Yama security module's say on ptrace
// (Documentation/admin-guide/LSM/Yama.rst). It is missing without Yama.
const yamaScope = "/proc/sys/kernel/yama/ptrace_scope"

// probePtrace finds out whether this process may trace those that it starts,
// without capabilities.
func probePtrace() error {
	scope, err := os.ReadFile(yamaScope)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading whether processes may be traced: %w", err)
	}
	if s := strings.TrimSpace(string(scope)); s == "2" || s == "3" {
		return fmt.Errorf("%s is %s, which forbids to trace processes without CAP_SYS_PTRACE: write 1 or 0 there", yamaScope, s)
	}
	// No process has this number: ESRCH means that the call is not denied.
	const nobody = 1 << 30
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, nobody, 0, 0, 0, 0)
	if errno != unix.ESRCH {
		return fmt.Errorf("ptrace is denied (%w): allow it in the container's seccomp profile", errno)
	}
	return nil
}

// inKernel words the failure of a call that probes for a feature of the kernel.
func inKernel(errno unix.Errno, feature, since string) error {
	switch errno {
	case 0:
		return nil
	case unix.EPERM, unix.EACCES:
		return fmt.Errorf("%s is denied (%w): allow it in the container's seccomp profile", feature, errno)
	}
	return fmt.Errorf("the kernel has no %s (%w): use %s", feature, errno, since)
}
