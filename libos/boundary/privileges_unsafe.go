package boundary

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// capset(2) reads the two structures and keeps no pointer. They are pinned,
// because AllThreadsSyscall passes them as integers to threads that the
// garbage collector knows nothing of.

// dropCapabilities empties the permitted, effective and inheritable set of all
// threads; the kernel empties the ambient set with them.
func dropCapabilities() error {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3} // pid 0: each thread itself
	none := new([2]unix.CapUserData)
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(header)
	pinned.Pin(none)
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(none)), 0); errno != 0 {
		return errno
	}
	return nil
}

// has tells whether capability c is in the calling thread's effective set.
func has(c uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[c/32].Effective>>(c%32)&1 != 0
}

// actionAvailable asks whether filters may return action (seccomp(2),
// SECCOMP_GET_ACTION_AVAIL, which reads 32 bits and keeps no pointer).
func actionAvailable(action linux.BPFAction) unix.Errno {
	word := uint32(action)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&word)))
	return errno
}
