package live

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	cs "junction/coresched"
)

// TestGivingTakesItsTime: while a cpuset cannot be removed yet, others are moved: who
// waits for that holds the actuator's lock, and the guard takes it for dead.
func TestGivingTakesItsTime(t *testing.T) {
	dir, cores := testCpuset(t)
	k, err := newKeeper(dir)
	require.NoError(t, err)
	var one cs.CPUSet
	one.Add(cores.Next(0))
	_, err = k.keep(one)
	require.NoError(t, err)
	busy := filepath.Join(k.setOf(&one), "busy") // with a cpuset in it, it is
	require.NoError(t, os.Mkdir(busy, 0o755))
	done := make(chan error, 1)
	go func() { done <- k.give(&one) }()
	eventually(t, "it has begun", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.kept) == 0
	})
	require.NoError(t, k.aside(os.Getpid()))
	select {
	case err := <-done:
		t.Fatal("it is over: ", err)
	default:
	}
	require.NoError(t, os.Remove(busy))
	require.NoError(t, <-done)
	require.NoDirExists(t, k.folder(restName))
}
