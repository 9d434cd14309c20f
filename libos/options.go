package libos

import (
	"errors"
	"log/slog"
	"os"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"junction/libos/boundary"
	"junction/libos/engine"
	"junction/libos/kthreads"
)

// Errors of Boot and Start that decide a shell's exit code. They are wrapped
// with the program's name and what to do about it; test with errors.Is.
var (
	// ErrNotFound: the program, or the interpreter of a script, does not exist (exit code 127).
	ErrNotFound = errors.New("not found")
	// ErrNotExecutable: the file exists but cannot be run: no permission, a
	// directory, no ELF file or script, another architecture (exit code 126).
	ErrNotExecutable = errors.New("cannot be executed")
)

// Options describes an instance. The zero value of a field means its default.
type Options struct {
	// Name is the instance's name and the host name that the program sees.
	Name string
	// Platform is the execution engine: engine.Inproc, engine.Systrap, or Auto, which is the default.
	Platform string

	// Argv is the program and its arguments; Argv[0] is looked up in the
	// PATH of Env when it has no slash.
	Argv []string
	// Env is the program's environment, entries KEY=VALUE.
	Env []string
	// Cwd is the program's working directory, absolute, in the instance.
	Cwd string
	// UID and GID are the program's user and group.
	UID, GID uint32

	// Root is the host directory that becomes the instance's "/". It is never
	// written: changes go to an overlay in memory. Default "/".
	Root string
	// ReadWrite are absolute paths of host directories whose changes are
	// written through to the host.
	ReadWrite []string

	// Stdio are the host files behind the program's descriptors 0, 1 and 2.
	// Boot duplicates them; the caller keeps its own.
	Stdio [3]*os.File

	// Network returns the instance's TCP/IP stack, which the instance owns from
	// then on. Boot calls it once, when it needs the stack: opening a NIC takes
	// long enough to do it meanwhile. Boot fails with its error. What needs
	// privileges must be done when it returns.
	Network func() (*stack.Stack, error) `json:"-"`

	// Kthreads is how many processors the program sees, and how many of its
	// threads execute at once. Default: those of the host's affinity mask.
	Kthreads int
	// Quantum is how long a thread executes while others wait for a processor;
	// negative: until it makes a system call. Default kthreads.DefaultQuantum.
	Quantum time.Duration
	// Policy says which address space the in-process engine has in this process.
	// Default: engine.DefaultPolicy.
	Policy *engine.Policy
	// Strace logs each system call of the program to Logger at level info.
	Strace bool
	// Boundary is what becomes of this process when it makes a host call that
	// an instance never makes. Default boundary.Kill; see package boundary for
	// the privileges that Boot and Start take from it.
	Boundary boundary.Violation
	// Watchdog reports tasks that are stuck inside the libOS.
	Watchdog bool
	// Logger receives the libOS's own messages. Default: discarded.
	Logger *slog.Logger
}

// ExitStatus tells how the program ended.
type ExitStatus struct {
	// Code is the exit code when Signal is 0.
	Code int
	// Signal is the number of the signal that killed the program, or 0.
	Signal int
}

// ShellCode returns the exit code that a shell would report: the program's
// own, or 128+n when signal n killed it.
func (s ExitStatus) ShellCode() int {
	if s.Signal != 0 {
		return 128 + s.Signal
	}
	return s.Code
}

// Stats is a snapshot of what an instance has used.
type Stats struct {
	// Platform is the execution engine in use.
	Platform string `json:"engine"`
	// Reason says why it is this engine and no other.
	Reason string `json:"engine_reason"`
	// HostCalls is how many different calls the process may make to the host's
	// kernel; 0 if any.
	HostCalls int `json:"host_calls"`
	// Syscalls counts the system calls of all programs of the instance.
	Syscalls uint64 `json:"syscalls"`
	// UserSeconds and SystemSeconds are the CPU time, in seconds, of the host
	// process and those of its children that have been waited for.
	UserSeconds   float64 `json:"user_seconds"`
	SystemSeconds float64 `json:"system_seconds"`
	// MaxRSSBytes is the largest resident set size of the host process, in bytes.
	MaxRSSBytes uint64 `json:"max_rss_bytes"`
	// Kthreads tells how threads shared the processors.
	Kthreads kthreads.Stats `json:"kthreads"`
	// AddressSpaces tells where programs executed; nil if the engine has one way only.
	AddressSpaces *engine.Stats `json:"address_spaces,omitempty"`
}

// The life of an instance, in order (see instance.go):
//
//	inst, err := libos.Boot(opts)      // kernel, mounts, program loaded; errors.Is ErrNotFound, ErrNotExecutable
//	inst.Start()                        // the program runs
//	inst.Signal(unix.SIGTERM)           // any time: to the foreground process group as a terminal would, else to the program
//	status := inst.Wait()               // the program's end
//	stats := inst.Stats()
//	inst.Close()                        // everything freed
