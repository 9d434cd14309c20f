package wire

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/ipc/control"
)

// Values that never end are refused, however small their parts are: a peer cannot make
// the monitor remember any number of them.
func TestReceiverBoundsUnfinishedValues(t *testing.T) {
	for _, part := range [][]byte{{more}, {more, 'x'}, append([]byte{more}, make([]byte, 1<<20)...)} {
		var r Receiver
		refused := false
		for id := range uint32(maxValue / unfinished * 2) {
			_, done, err := r.add(id, part)
			require.False(t, done)
			if err != nil {
				require.ErrorIs(t, err, control.ErrProtocol)
				refused = true
				break
			}
		}
		require.True(t, refused, "parts of %d bytes", len(part))
		require.LessOrEqual(t, len(r.partial), maxValue/unfinished)
	}
}

// Values are whole whatever others come between their parts, and what is whole does
// not count any more.
func TestReceiverPutsPartsTogether(t *testing.T) {
	var r Receiver
	half := bytes.Repeat([]byte{'a'}, maxValue/4)
	for range 10 {
		for _, id := range []uint32{1, 2, 1, 2} {
			_, done, err := r.add(id, append([]byte{more}, half[:len(half)/2]...))
			require.NoError(t, err)
			require.False(t, done)
		}
		for _, id := range []uint32{2, 1} {
			whole, done, err := r.add(id, []byte{last, 'z'})
			require.NoError(t, err)
			require.True(t, done)
			require.Equal(t, append(half[:len(half):len(half)], 'z'), whole)
		}
		require.Zero(t, r.size)
		require.Empty(t, r.partial)
	}
}
