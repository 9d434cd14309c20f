package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeAction asks whether seccomp filters may return action. The kernel reads
// 32 bits and keeps no pointer (seccomp(2), SECCOMP_GET_ACTION_AVAIL).
func probeAction(action uint32) error {
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return inKernel(errno, "seccomp filter of that kind", "Linux 4.14 or newer with CONFIG_SECCOMP_FILTER")
}
