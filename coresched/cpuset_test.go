package coresched

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCPUSetRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s CPUSet
		in := map[CPU]bool{}
		for _, c := range rapid.SliceOf(rapid.Int32Range(-2, MaxCPUs+1)).Draw(t, "cores") {
			s.Add(CPU(c))
			in[CPU(c)] = CPU(c).valid()
		}
		for c, want := range in {
			require.Equal(t, want, s.Has(c))
		}
		n := 0
		for c := s.Next(0); c != NoCPU; c = s.Next(c + 1) {
			require.True(t, in[c])
			n++
		}
		require.Equal(t, n, s.Len())
		again, err := ParseCPUSet(s.String())
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func TestParseCPUSet(t *testing.T) {
	s, err := ParseCPUSet("0-2,7,63-65")
	require.NoError(t, err)
	require.Equal(t, "0-2,7,63-65", s.String())
	for _, bad := range []string{"-", "1-", "3-1", "1,,2", "1024", "a", "1-2-3", "99999999999"} {
		_, err := ParseCPUSet(bad)
		require.Error(t, err, bad)
	}
}

func FuzzParseCPUSet(f *testing.F) {
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseCPUSet(text)
		if err != nil {
			return
		}
		again, err := ParseCPUSet(s.String())
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}
