//go:build amd64

package engine

import (
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// startSecond makes the second platform, whose processes are copies of this
// one that it traces. What is not dumpable cannot be traced without
// CAP_SYS_PTRACE (ptrace(2)), so this process is dumpable meanwhile; what is
// copied later is copied from those processes.
func startSecond(c platform.Constructor, opts platform.Options) (_ platform.Platform, err error) {
	was, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err == nil && was != 1 {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("starting %s: making this process traceable: %w", Systrap, err)
		}
		defer unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	return c.New(opts)
}
