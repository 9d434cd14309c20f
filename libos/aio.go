package libos

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// Asynchronous I/O (io_submit) may go on when the program whose memory it uses
// has ended. The Sentry's own way to that memory finds it gone then; the way by
// the platform's address space takes it that there is one, and fails this
// process. So programs that use asynchronous I/O go the Sentry's own way.

// installAsyncIO wraps the call that begins it. It must run before the kernel
// starts, once in a process.
func installAsyncIO() error {
	if err := findOwnWay(); err != nil {
		return err
	}
	wrapCall(unix.SYS_IO_SETUP, func(fn kernel.SyscallFn) kernel.SyscallFn {
		return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
			goOwnWay(t.MemoryManager())
			return fn(t, sysno, args)
		}
	})
	return nil
}
