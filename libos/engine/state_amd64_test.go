package engine

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestShowUnused: x87 state that is not in use reads as after fninit; state
// that is, and all else, stays.
func TestShowUnused(t *testing.T) {
	old := bytes.Repeat([]byte{0xa5}, 832)
	for _, used := range []bool{true, false} {
		state := slices.Clone(old)
		state[512] = 6
		if used {
			state[512] |= 1
		}
		want := slices.Clone(state)
		if !used {
			copy(want, make([]byte, 24))
			copy(want, []byte{0x7f, 0x03})
			copy(want[32:], make([]byte, 128))
		}
		showUnused(state)
		require.Equal(t, want, state)
	}
	showUnused(nil)
}
