//go:build amd64

package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/hostarch"
	"pgregory.net/rapid"
)

// TestWithoutHost: of any range, exactly the bytes that are not the host's are
// visited, once and in order.
func TestWithoutHost(t *testing.T) {
	defer func(saved []hostarch.AddrRange) { hostRanges = saved }(hostRanges)
	rapid.Check(t, func(t *rapid.T) {
		hostRanges = nil
		end := uint64(0)
		for range rapid.IntRange(0, 4).Draw(t, "host ranges") {
			start := end + rapid.Uint64Range(0, 5).Draw(t, "gap")
			end = start + rapid.Uint64Range(1, 5).Draw(t, "length")
			addHostRange(start, end)
		}
		start := rapid.Uint64Range(0, 40).Draw(t, "start")
		r := hostarch.AddrRange{Start: hostarch.Addr(start), End: hostarch.Addr(start + rapid.Uint64Range(1, 40).Draw(t, "size"))}

		var want, got []hostarch.Addr
		for a := r.Start; a < r.End; a++ {
			if !overlapsHost(hostarch.AddrRange{Start: a, End: a + 1}) {
				want = append(want, a)
			}
		}
		withoutHost(r, func(part hostarch.AddrRange) {
			for a := part.Start; a < part.End; a++ {
				got = append(got, a)
			}
		})
		require.Equal(t, want, got)
	})
}

func TestLayoutMatchesAssembly(t *testing.T) {
	require.NoError(t, checkLayout())
}

// TestRefusesMisplacedBinary: a test binary is linked where programs belong.
func TestRefusesMisplacedBinary(t *testing.T) {
	defer func(saved []hostarch.AddrRange) { hostRanges = saved }(hostRanges)
	require.ErrorContains(t, findHostRanges(), "link it with")
}
