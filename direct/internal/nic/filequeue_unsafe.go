package nic

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gather checks a frame and points q.iov at its header and parts. It returns
// the length of the frame.
//
// Invariant: q.iov is ordinary Go memory with typed pointers, so the collector
// sees what they point to; they are cleared after the system call.
func (q *FileQueue) gather(hdr *[VnetHdrLen]byte, parts [][]byte) (total int, err error) {
	for _, p := range parts {
		total += len(p)
	}
	if err := q.check(hdr, total, len(parts)); err != nil {
		return 0, err
	}
	q.iov[0] = unix.Iovec{Base: &hdr[0], Len: VnetHdrLen}
	for i, p := range parts {
		q.iov[1+i] = unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	}
	return total, nil
}

// writev writes the first n elements of q.iov as one frame.
func (q *FileQueue) writev(n int) error {
	_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&q.iov)), uintptr(n))
	runtime.KeepAlive(q)
	if errno != 0 {
		return errno
	}
	return nil
}
