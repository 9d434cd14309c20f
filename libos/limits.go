package libos

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/limits"
)

// programLimits are Linux's defaults, with those that a user sets for servers
// taken from this process: what `ulimit` says outside holds inside.
func programLimits() (*limits.LimitSet, error) {
	set, err := limits.NewLinuxLimitSet()
	if err != nil {
		return nil, err
	}
	for _, resource := range []int{
		unix.RLIMIT_FSIZE, unix.RLIMIT_NOFILE, unix.RLIMIT_STACK, unix.RLIMIT_CORE, unix.RLIMIT_DATA, unix.RLIMIT_NPROC,
	} {
		var host unix.Rlimit
		if err := unix.Getrlimit(resource, &host); err != nil {
			return nil, err
		}
		set.SetUnchecked(limits.FromLinuxResource[resource], limits.Limit{
			Cur: limits.FromLinux(host.Cur),
			Max: limits.FromLinux(host.Max),
		})
	}
	return set, nil
}
