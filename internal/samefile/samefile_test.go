package samefile

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	a, err := os.Create(path)
	require.NoError(t, err)
	defer a.Close()
	b, err := os.Open(path)
	require.NoError(t, err)
	defer b.Close()
	fd, err := unix.Dup(int(a.Fd()))
	require.NoError(t, err)
	c := os.NewFile(uintptr(fd), "dup")
	defer c.Close()
	require.True(t, Same(a, c))
	require.False(t, Same(a, b), "opened twice: two offsets")
	require.True(t, Same(a, a))
}

// TestTerminal: a terminal is one, however often it is opened.
func TestTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer master.Close()
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	path := filepath.Join("/dev/pts", strconv.Itoa(n))
	a, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer a.Close()
	b, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer b.Close()
	require.True(t, Same(a, b))
	require.False(t, Same(a, master))
}
