package engine

import (
	"errors"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cpuid"
)

// inprocNeeds lists what setUp and new threads need, the kernel's parts first.
func inprocNeeds() []Need {
	cpuid.Initialize()
	needs := []Need{
		{"syscall_user_dispatch", probeDispatch()},
		{"fsgsbase_and_xsave", initExtendedState()},
	}
	for _, n := range needs {
		if n.Err != nil {
			return needs // setUp would fail with the same error
		}
	}
	return append(needs, Need{"set_up", setUp()})
}

func inprocExtras() []Need {
	cpuid.Initialize()
	keys := Need{Name: "protection_keys"}
	if !cpuid.HostFeatureSet().HasFeature(cpuid.X86FeatureOSPKE) {
		keys.Err = errors.New("this machine has no protection keys (ospke in /proc/cpuinfo): a program that reads its own text sees what is patched there")
	}
	return []Need{keys}
}

// probeDispatch switches Syscall User Dispatch off for the calling thread,
// where nothing has switched it on.
func probeDispatch() error {
	const prSysDispatchOff = 0
	_, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SYSCALL_USER_DISPATCH, prSysDispatchOff, 0, 0, 0, 0)
	return inKernel(errno, "Syscall User Dispatch", "Linux 5.11 or newer")
}
