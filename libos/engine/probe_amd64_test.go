package engine

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"
)

// TestNeeds: a test binary is not linked where the engine needs it, and that
// is all that is wrong with it on a machine that this project is made for.
func TestNeeds(t *testing.T) {
	needs := Needs(Inproc)
	require.Len(t, needs, 3)
	for _, n := range needs[:2] {
		require.NoError(t, n.Err, n.Name)
	}
	require.Equal(t, "set_up", needs[2].Name)
	require.ErrorContains(t, needs[2].Err, "link it with")
	require.Equal(t, needs[2].Err, Probe(Inproc))
}

// TestExtras: the kernel says the same of the processor.
func TestExtras(t *testing.T) {
	info, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(t, err)
	extras := Extras(Inproc)
	require.Len(t, extras, 1)
	require.Equal(t, strings.Contains(string(info), " ospke"), extras[0].Err == nil, extras[0].Name)
	require.Empty(t, Extras(Systrap))
}

// TestProbeChangesNothing: the thread that probed may go on as before.
func TestProbeChangesNothing(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := os.ReadFile("/proc/thread-self/status")
	require.NoError(t, err)
	require.NoError(t, probeDispatch())
	after, err := os.ReadFile("/proc/thread-self/status")
	require.NoError(t, err)
	require.Equal(t, seccompLines(before), seccompLines(after))
}

func seccompLines(status []byte) (lines []string) {
	for _, l := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(l, "Seccomp") || strings.HasPrefix(l, "NoNewPrivs") {
			lines = append(lines, l)
		}
	}
	return lines
}

// deniedEnv tells this test binary to be the child of TestDenied.
const deniedEnv = "JUNCTION_ENGINE_TEST_DENIED"

// TestDenied probes in a process whose seccomp filter denies, as a container's
// does, what the engines need.
func TestDenied(t *testing.T) {
	if os.Getenv(deniedEnv) == "" {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDenied$")
		c.Env = append(os.Environ(), deniedEnv+"=1")
		out, err := c.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	denied := seccomp.MakeSyscallRules(map[uintptr]seccomp.SyscallRule{
		unix.SYS_PRCTL:  seccomp.PerArg{seccomp.EqualTo(unix.PR_SET_SYSCALL_USER_DISPATCH)},
		unix.SYS_PTRACE: seccomp.MatchAll{},
	})
	p := seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: denied, Action: seccomp.ReturnError.Code(uint16(unix.EPERM))}},
		Options:  seccomp.ProgramOptions{DefaultAction: seccomp.Allow, BadArchAction: seccomp.Allow},
	}
	instructions, _, err := p.Build()
	require.NoError(t, err)
	require.NoError(t, seccomp.SetFilter(instructions))
	needs := Needs(Inproc)
	require.Len(t, needs, 2, "set-up is not tried")
	require.ErrorContains(t, needs[0].Err, "Syscall User Dispatch is denied")
	require.NoError(t, needs[1].Err)
	require.ErrorContains(t, Probe(Systrap), "ptrace is denied")
}
