package boundary

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Probe tells why this host cannot confine an instance, and returns nil if it can.
func Probe() error {
	if errno := actionAvailable(linux.SECCOMP_RET_KILL_PROCESS); errno != 0 {
		return fmt.Errorf("the kernel has no seccomp filters that end a process (%w): use Linux 4.14 or newer with CONFIG_SECCOMP_FILTER, or --boundary off", errno)
	}
	return nil
}
