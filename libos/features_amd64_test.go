package libos

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/cpuid"
	"pgregory.net/rapid"
)

// The table says what the fixed set says, for every question.
func TestFeatureTable(t *testing.T) {
	cpuid.Initialize()
	want, have := cpuid.HostFeatureSet().Fixed(), features()
	require.Equal(t, want.FlagString(), have.FlagString())
	require.Equal(t, want.UseXsave(), have.UseXsave())
	wantSize, wantAlign := want.ExtendedStateSize()
	size, align := have.ExtendedStateSize()
	require.Equal(t, []uint{wantSize, wantAlign}, []uint{size, align})
	rapid.Check(t, func(t *rapid.T) {
		// Both sides of the table's edges, extended leaves and what nobody asks for.
		in := cpuid.In{
			Eax: rapid.Uint32Range(0, 2*directLeaves).Draw(t, "leaf") | rapid.SampledFrom([]uint32{0, 0x80000000}).Draw(t, "extended"),
			Ecx: rapid.Uint32Range(0, 2*directSubleaves).Draw(t, "subleaf"),
		}
		require.Equal(t, want.Query(in), have.Query(in), "%+v", in)
	})
}

func BenchmarkFeatures(b *testing.B) {
	cpuid.Initialize()
	for name, fs := range map[string]cpuid.FeatureSet{"map": cpuid.HostFeatureSet().Fixed(), "table": features()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				fs.UseXsave()
			}
		})
	}
}
