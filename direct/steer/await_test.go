package steer

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// To visit all processors leaves the caller, and the threads of others, where they
// may be.
func TestAwait(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	may := func() (s unix.CPUSet) {
		require.NoError(t, unix.SchedGetaffinity(0, &s))
		return s
	}
	before := may()
	for range 100 {
		Await()
		require.Equal(t, before, may())
	}
	for range 8 {
		others := make(chan unix.CPUSet)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var s unix.CPUSet
			_ = unix.SchedGetaffinity(0, &s)
			others <- s
		}()
		require.Equal(t, before, <-others)
	}
}

func TestOffline(t *testing.T) {
	require.False(t, offline(0), "a processor that this test may run on")
	require.True(t, offline(1<<20), "one that is not there")
}

func BenchmarkAwait(b *testing.B) {
	for b.Loop() {
		Await()
	}
}
