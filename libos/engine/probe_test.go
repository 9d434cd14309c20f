package engine

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestProbeSystrap(t *testing.T) {
	scope, _ := os.ReadFile(yamaScope)
	if s := strings.TrimSpace(string(scope)); s == "2" || s == "3" {
		require.ErrorContains(t, Probe(Systrap), yamaScope)
		return
	}
	require.NoError(t, Probe(Systrap))
}

func TestProbeUnknown(t *testing.T) {
	require.ErrorContains(t, Probe("kvm"), "choose inproc or systrap")
}

func TestInKernel(t *testing.T) {
	require.NoError(t, inKernel(0, "x", "y"))
	require.ErrorContains(t, inKernel(unix.EPERM, "x", "y"), "seccomp profile")
	require.ErrorContains(t, inKernel(unix.EINVAL, "x", "Linux 9"), "use Linux 9")
	require.ErrorIs(t, inKernel(unix.EINVAL, "x", "y"), unix.EINVAL)
}
