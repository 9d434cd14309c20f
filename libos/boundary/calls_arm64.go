package boundary

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

const (
	sysFstatat   = unix.SYS_FSTATAT
	architecture = linux.AUDIT_ARCH_AARCH64
)

// vsyscalls: there are none.
var vsyscalls []uintptr

func systrapLaterArch() []call { return nil }
