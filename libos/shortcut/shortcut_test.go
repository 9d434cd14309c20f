package shortcut

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	_ "gvisor.dev/gvisor/pkg/sentry/syscalls/linux" // registers the table
)

// The Sentry's task has the fields that are used here.
func TestFields(t *testing.T) {
	require.NoError(t, findFields())
	require.NotEqual(t, gostate, gostateTime)
}

// Each call that is named exists, and none of those that need the task loop.
func TestCalls(t *testing.T) {
	var table *kernel.SyscallTable
	for _, s := range kernel.SyscallTables() {
		if s.Arch == arch.Host {
			table = s
		}
	}
	require.NotNil(t, table)
	calls := findCalls()
	count := 0
	for _, is := range calls {
		if is {
			count++
		}
	}
	if arch.Host == arch.AMD64 {
		require.Equal(t, len(names), count)
	}
	for _, name := range []string{
		"clone", "clone3", "execve", "execveat", "exit", "exit_group", "ptrace", "seccomp", "prctl", "sigaltstack",
		"ppoll", "pselect6", "epoll_pwait", "epoll_pwait2", "rt_sigsuspend", "restart_syscall",
	} {
		nr, err := table.LookupNo(name)
		require.NoError(t, err, name)
		require.False(t, calls[nr], name)
	}
}
