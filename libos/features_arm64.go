package libos

import "gvisor.dev/gvisor/pkg/cpuid"

// features are those of the host's processor that programs may use.
func features() cpuid.FeatureSet { return cpuid.HostFeatureSet().Fixed() }
