package nic

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gather checks a frame and points w.iov at its header and parts. It returns
// the length of the frame.
//
// Invariant: w.iov is ordinary Go memory with typed pointers, so the collector
// sees what they point to; they are cleared after the system call.
func (w *FileWriter) gather(hdr *[VnetHdrLen]byte, parts [][]byte) (total int, err error) {
	for _, p := range parts {
		total += len(p)
	}
	if err := w.check(hdr, total, len(parts)); err != nil {
		return 0, err
	}
	w.iov[0] = unix.Iovec{Base: &hdr[0], Len: VnetHdrLen}
	for i, p := range parts {
		w.iov[1+i] = unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	}
	return total, nil
}

// writev writes the first n elements of w.iov as one frame.
func (w *FileWriter) writev(n int) error {
	_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(w.fd), uintptr(unsafe.Pointer(&w.iov)), uintptr(n))
	runtime.KeepAlive(w)
	if errno != 0 {
		return errno
	}
	return nil
}
