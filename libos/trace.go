package libos

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/strace"
)

// callCounter stands in front of a system call table's tracer: it counts the
// calls of all programs and passes them on if they are to be printed.
type callCounter struct {
	calls *atomic.Uint64
	next  kernel.Stracer // nil: count only
}

// installTracing makes the kernel report each system call; with print, calls
// are also printed to the log. It returns the counter. It must run before
// the kernel starts, and costs two indirect calls per system call.
func installTracing(print bool) *atomic.Uint64 {
	calls := new(atomic.Uint64)
	strace.Initialize()
	for _, table := range kernel.SyscallTables() {
		c := callCounter{calls: calls}
		if print {
			c.next = table.Stracer
		}
		table.Stracer = c
	}
	strace.LogAppDataAllowed = print
	strace.EnableAll(strace.SinkTypeLog)
	return calls
}

// SyscallEnter implements kernel.Stracer.SyscallEnter.
func (c callCounter) SyscallEnter(t *kernel.Task, sysno uintptr, args arch.SyscallArguments, flags uint32) any {
	c.calls.Add(1)
	if c.next == nil {
		return nil
	}
	return c.next.SyscallEnter(t, sysno, args, flags)
}

// SyscallExit implements kernel.Stracer.SyscallExit.
func (c callCounter) SyscallExit(context any, t *kernel.Task, sysno, rval uintptr, err error) {
	if c.next != nil {
		c.next.SyscallExit(context, t, sysno, rval, err)
	}
}
