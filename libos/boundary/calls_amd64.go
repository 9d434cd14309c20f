package boundary

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

const (
	sysFstatat   = unix.SYS_NEWFSTATAT
	architecture = linux.AUDIT_ARCH_X86_64
)

// vsyscalls are the calls that the kernel makes of a program's jump into the
// vsyscall page (arch/x86/entry/vsyscall), beside gettimeofday and getcpu. It
// asks the filter, and no other, for leave.
var vsyscalls = []uintptr{unix.SYS_TIME}

func systrapLaterArch() []call {
	const faultCPUID = 0x1012 // ARCH_CPUID_FAULT, asm/prctl.h
	return []call{where(unix.SYS_ARCH_PRCTL, 0, faultCPUID)}
}
