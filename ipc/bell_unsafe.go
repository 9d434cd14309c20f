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
