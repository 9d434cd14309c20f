package control

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sendEmpty sends a message of no bytes with control messages, which the
// wrappers of sendmsg(2) do not. All pointers are of live slices of this call.
func sendEmpty(t *testing.T, fd int, oob []byte) {
	h := unix.Msghdr{Control: &oob[0]}
	h.SetControllen(len(oob))
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), 0)
	require.Zero(t, errno)
}
