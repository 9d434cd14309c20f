package ipc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvNow reads from a socket without ever blocking, whatever others that hold
// the same end have done to its O_NONBLOCK: an instance holds the server's ends
// too, for the monitor's successor. unix.Recvfrom does the same and allocates.
//
// Invariant: b is not empty, and the kernel keeps no reference to it.
func recvNow(fd int, b []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// epollNow returns the events of an epoll set that there are, without blocking.
// epoll_wait is not among the calls that an instance may make; epoll_pwait, which
// Go's runtime uses, is.
//
// Invariant: events is not empty, and the kernel keeps no reference to it.
func epollNow(set int, events []unix.EpollEvent) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(set), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
