package boundary

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap" // whose own list is compared
	_ "gvisor.dev/gvisor/pkg/sentry/syscalls/linux"   // names of system calls
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the lists of host calls to testdata")

// instances are the kinds of instance that differ in their host calls.
var instances = map[string]Needs{
	"systrap":    {Systrap: true},
	"systrap-rw": {Systrap: true, Write: true},
	"inproc":     {Systrap: true, SystrapLater: true},
	"inproc-rw":  {Systrap: true, SystrapLater: true, Write: true},
}

// TestList compares the allowed host calls with the reviewed lists: whoever
// allows one more has to change them too.
func TestList(t *testing.T) {
	for name, n := range instances {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, g := range n.groups() {
				fmt.Fprintf(&got, "%s: %s\n", g.name, g.reason)
				for _, c := range g.calls {
					fmt.Fprintf(&got, "\t%s%s\n", nameOf(c.number), c.condition())
				}
			}
			fmt.Fprintf(&got, "%d host calls\n", len(n.calls()))
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got.String(), "the list changed; if that is meant: go test ./libos/boundary -update, and the numbers in ARCHITECTURE.md")
		})
	}
}

// byProcess are the calls whose argument is this process's number, which differs from run to run.
var byProcess = []uintptr{unix.SYS_TGKILL, unix.SYS_RT_TGSIGQUEUEINFO}

// condition tells what an argument must be.
func (c call) condition() string {
	if c.values == nil {
		return ""
	}
	if slices.Contains(byProcess, c.number) {
		return fmt.Sprintf(" argument %d: this process", c.arg)
	}
	var values []string
	for _, v := range c.values {
		values = append(values, fmt.Sprintf("%#x", v))
	}
	return fmt.Sprintf(" argument %d: %s", c.arg, strings.Join(values, " "))
}

func nameOf(number uintptr) string {
	table, ok := kernel.LookupSyscallTable(0, arch.Host)
	if !ok {
		panic("no table of system calls")
	}
	return table.LookupName(number)
}

// TestListHasSystraps expects what gVisor says that systrap calls to be allowed.
func TestListHasSystraps(t *testing.T) {
	c, err := platform.Lookup("systrap")
	require.NoError(t, err)
	info := c.PrecompiledSeccompInfo()[0]
	rules := info.SyscallFilters(info.Variables())
	require.NotZero(t, rules.Size())
	ours := make(map[uintptr]bool)
	for _, c := range instances["systrap"].calls() {
		ours[c.number] = true
	}
	for n := range uintptr(1000) {
		require.True(t, !rules.Has(n) || ours[n], "systrap calls %s", nameOf(n))
	}
}

// TestOneArgument: a call of two groups that look at different arguments could not be merged.
func TestOneArgument(t *testing.T) {
	for _, n := range instances {
		arg := make(map[uintptr]int)
		for _, g := range n.groups() {
			for _, c := range g.calls {
				if c.values == nil {
					continue
				}
				if before, ok := arg[c.number]; ok {
					require.Equal(t, before, c.arg, nameOf(c.number))
				}
				arg[c.number] = c.arg
			}
		}
	}
}

// TestProgram runs filters in gVisor's interpreter of classic BPF and expects
// of each host call what the list says.
func TestProgram(t *testing.T) {
	for name, n := range instances {
		t.Run(name, func(t *testing.T) {
			calls := n.calls()
			compiled, err := bpf.Compile(program(calls, linux.SECCOMP_RET_KILL_PROCESS), false)
			require.NoError(t, err)
			rapid.Check(t, func(t *rapid.T) {
				data := linux.SeccompData{Nr: int32(rapid.Uint32Range(0, 600).Draw(t, "number")), Arch: architecture}
				if rapid.IntRange(0, 9).Draw(t, "foreign") == 0 {
					data.Arch = rapid.Uint32().Draw(t, "arch")
				}
				if rapid.IntRange(0, 9).Draw(t, "x32") == 0 {
					data.Nr |= 0x40000000 // __X32_SYSCALL_BIT
				}
				for i := range data.Args {
					data.Args[i] = rapid.Uint64().Draw(t, "argument")
				}
				i := slices.IndexFunc(calls, func(c call) bool { return c.number == uintptr(data.Nr) })
				if i >= 0 && calls[i].values != nil && rapid.Bool().Draw(t, "allowed") {
					data.Args[calls[i].arg] = uint64(rapid.SampledFrom(calls[i].values).Draw(t, "value"))
				}
				want := linux.BPFAction(linux.SECCOMP_RET_KILL_PROCESS)
				if data.Arch == architecture && i >= 0 && (calls[i].values == nil || slices.Contains(calls[i].values, uint32(data.Args[calls[i].arg]))) {
					want = linux.SECCOMP_RET_ALLOW
				}
				input := make([]byte, data.SizeBytes())
				data.MarshalUnsafe(input)
				got, err := bpf.Exec[bpf.NativeEndian](compiled, bpf.Input(input))
				if err != nil || linux.BPFAction(got) != want {
					t.Fatalf("%+v: %v, %v; want %v", data, linux.BPFAction(got), err, want)
				}
			})
		})
	}
}

func TestUnknownViolation(t *testing.T) {
	for _, v := range []Violation{"", Off, "log"} {
		_, err := Compile(Needs{}, v)
		require.ErrorContains(t, err, "accepted: kill, trap")
	}
}

// forbidden are host calls that none of the lists has, or not with these arguments.
var forbidden = map[string]func() error{
	"socket": func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err },
	"execve": func() error { return unix.Exec("/bin/true", []string{"true"}, nil) },
	"kill":   func() error { return unix.Kill(os.Getppid(), unix.SIGCONT) },
	"chdir":  func() error { return unix.Chdir("/") },
	"clone":  func() error { return exec.Command("/bin/true").Run() },
	"tiocsti": func() error {
		return unix.IoctlSetInt(0, unix.TIOCSTI, 0)
	},
	"f_setown": func() error { _, err := unix.FcntlInt(0, unix.F_SETOWN, 1); return err },
	"prctl":    func() error { return unix.Prctl(unix.PR_SET_NAME, 0, 0, 0, 0) },
	"tgkill":   func() error { return unix.Tgkill(1, 1, 0) },
}

// TestViolation makes forbidden calls in processes of their own.
func TestViolation(t *testing.T) {
	for name := range forbidden {
		for _, v := range []Violation{Kill, Trap} {
			t.Run(name+"/"+string(v), func(t *testing.T) {
				out, err := childOf(t, "violation", name, string(v)).CombinedOutput()
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit, string(out))
				require.Contains(t, string(out), "enclosed\n")
				require.NotContains(t, string(out), "survived")
				status := exit.Sys().(syscall.WaitStatus)
				if v == Trap {
					require.Equal(t, 2, status.ExitStatus())
					require.Contains(t, string(out), "SIGSYS: bad system call")
					require.Contains(t, string(out), "boundary.init", "where the call was made")
					return
				}
				require.Equal(t, unix.SIGSYS, status.Signal())
			})
		}
	}
}

// childViolation is the process that makes the call, on another thread than
// the one that installed the filter.
func childViolation(name string, v Violation) error {
	f, err := Compile(Needs{}, v)
	if err == nil {
		err = errors.Join(DropPrivileges(0, 0), f.Install())
	}
	if err != nil {
		return err
	}
	fmt.Println("enclosed")
	done := make(chan error)
	go func() { done <- forbidden[name]() }()
	return fmt.Errorf("survived: %w", <-done)
}

func childOf(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	c := exec.CommandContext(t.Context(), self)
	c.Env = []string{childEnv + "=" + strings.Join(args, " ")}
	c.Stdin = bytes.NewReader(nil)
	return c
}
