package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "8": 1, "1": 1, "500k": 62500, "100M": 12_500_000, "1.5g": 187_500_000} {
		got, err := parseRate(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "k", "-1", "1t", "NaN", "1e300", "99999g", "10 m", "m10"} {
		_, err := parseRate(text)
		require.Error(t, err, text)
	}
}
