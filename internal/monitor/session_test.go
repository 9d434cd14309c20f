package monitor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSilenceIsTheServersOwn: a monitor that did not run for a while blames
// nobody for what it could not hear; a server that hangs is found all the same.
func TestSilenceIsTheServersOwn(t *testing.T) {
	const interval = 50 * time.Millisecond
	began := time.Now()
	x := &session{alive: began}
	require.Equal(t, interval, x.silent(began.Add(interval), 0))
	late := 10 * time.Second
	now := began.Add(2*interval + late)
	require.Equal(t, 2*interval, x.silent(now, late), "the monitor slept")
	require.Equal(t, 3*interval, x.silent(now.Add(interval), -time.Millisecond), "an early check adds nothing")
}
