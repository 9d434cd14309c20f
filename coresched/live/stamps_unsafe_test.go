package live

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Invariants of this file: the memfd is resumesSize bytes long and stays so, both
// sides being this test; resumes has no pointers, and any bits are valid values
// of it; a mapping is page-aligned, and kept until the process ends.

const resumesSize = int64(unsafe.Sizeof([2]resumes{}))

func mapResumes(fd int) (*[2]resumes, error) {
	b, err := unix.Mmap(fd, 0, int(resumesSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*[2]resumes)(unsafe.Pointer(&b[0])), nil
}
