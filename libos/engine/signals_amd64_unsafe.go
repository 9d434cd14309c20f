//go:build amd64

package engine

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// previous are the handlers that stood before, by signal; sigHandler
// continues with them in host mode.
var previous [65]uintptr

// installHandlers puts sigHandler in front of the handler of each signal that
// has one. Flags, mask (all signals) and alternate stack stay those that the
// Go runtime set.
//
// Invariant: sigHandler preserves what a handler is entered with when it
// continues with the previous one.
func installHandlers() error {
	for sig := 1; sig <= 64; sig++ {
		if sig == int(unix.SIGKILL) || sig == int(unix.SIGSTOP) {
			continue
		}
		var sa linux.SigAction
		if errno := sigaction(sig, nil, &sa); errno != 0 {
			return fmt.Errorf("reading the handler of signal %d: %w", sig, errno)
		}
		if sa.Handler <= 1 { // SIG_DFL, SIG_IGN
			continue
		}
		previous[sig] = uintptr(sa.Handler)
		sa.Handler = uint64(addrOfHandler())
		sa.Mask = ^linux.SignalSet(0)
		if errno := sigaction(sig, &sa, nil); errno != 0 {
			return fmt.Errorf("setting the handler of signal %d: %w", sig, errno)
		}
	}
	return nil
}

func sigaction(sig int, act, old *linux.SigAction) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return errno
}
