package libos

import "gvisor.dev/gvisor/pkg/cpuid"

// Leaves and subleaves of the CPUID instruction that featureTable holds directly:
// all that the Sentry asks for while programs run.
const (
	directLeaves    = 32
	directSubleaves = 4
)

// featureTable answers as the Sentry's own fixed set of features does, which is a
// map: it is asked several times for each signal that a program handles.
//
// It implements cpuid.Function, and is not written after it was made.
type featureTable struct {
	direct [directLeaves][directSubleaves]cpuid.Out
	all    cpuid.Function
}

// Query implements cpuid.Function.Query.
func (t *featureTable) Query(in cpuid.In) cpuid.Out {
	if in.Eax < directLeaves && in.Ecx < directSubleaves {
		return t.direct[in.Eax][in.Ecx]
	}
	return t.all.Query(in)
}

// features are those of the host's processor that programs may use.
func features() cpuid.FeatureSet {
	fs := cpuid.HostFeatureSet().Fixed()
	t := &featureTable{all: fs.Function}
	for leaf := range t.direct {
		for subleaf := range t.direct[leaf] {
			t.direct[leaf][subleaf] = t.all.Query(cpuid.In{Eax: uint32(leaf), Ecx: uint32(subleaf)})
		}
	}
	fs.Function = t
	return fs
}
