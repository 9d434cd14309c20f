package actors

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A board is shared by all who open its file, and remembers the last moments.
func TestBoard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "board")
	one, err := OpenBoard(path)
	require.NoError(t, err)
	other, err := OpenBoard(path)
	require.NoError(t, err)
	one.Actors[1].Runs.Add(5, 0)
	one.Decided.Add(7, 3)
	n, all := other.Decided.Since(0, nil)
	require.EqualValues(t, 1, n)
	require.Equal(t, []Moment{{7, 3}}, all)
	_, all = other.Actors[1].Runs.Since(0, nil)
	require.Equal(t, []Moment{{5, 0}}, all)
	require.NoError(t, CloseBoard(one))
	require.NoError(t, CloseBoard(other))
	_, err = OpenBoard(filepath.Join(path, "nowhere"))
	require.Error(t, err)
}

// Who looks often enough misses nothing, and sees nothing twice.
func TestMoments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Moments
		var seen uint64
		var all []Moment
		next := 0
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, depth-100), 0, 20).Draw(t, "bursts") {
			for range n {
				m.Add(time.Duration(next), next%7)
				next++
			}
			seen, all = m.Since(seen, all)
		}
		require.Len(t, all, next)
		for i, a := range all {
			require.Equal(t, Moment{time.Duration(i), i % 7}, a)
		}
	})
}

func TestRunRefuses(t *testing.T) {
	require.ErrorContains(t, Run(nil), "burner")
	require.Error(t, Run([]string{"hero"}))
	require.Error(t, Run([]string{"idle", "many"}))
	require.Error(t, Run([]string{"idler", "{"}))
	require.ErrorIs(t, Run([]string{"threads"}), errBoard)
}
