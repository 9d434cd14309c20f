package e2e

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestSignals expects each forwarded signal to reach the program, once.
func TestSignals(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		i := start(t, isolated(engine), guest, "signals")
		i.await("ready\n")
		want := "ready\n"
		for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGQUIT, unix.SIGWINCH} {
			i.signal(sig)
			want += unix.SignalName(sig) + "\n"
			i.await(want)
		}
		i.terminate(7)
		require.Equal(t, want+"SIGTERM\n", i.stdout.String())
	})
}

// TestDefaultSignals expects death by signals that the program leaves alone.
func TestDefaultSignals(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM} {
			i := start(t, isolated(engine), "sh", "-c", "echo ready; exec sleep 1000")
			i.await("ready\n")
			i.signal(sig)
			require.Equal(t, 128+int(sig), i.exit(), unix.SignalName(sig))
		}
	})
}
