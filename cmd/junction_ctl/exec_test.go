package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"junction/ipc/control"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{"TERM": unix.SIGTERM, "sigusr1": unix.SIGUSR1, "9": unix.SIGKILL, "64": 64} {
		got, err := parseSignal(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "0", "65", "-1", "TERMINATE", "SIG"} {
		_, err := parseSignal(text)
		require.Error(t, err, text)
	}
}

// TestControls: the terminal's number is found, as the kernel writes it.
func TestControls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		major, minor := rapid.Uint32Range(0, 0xfff).Draw(t, "major"), rapid.Uint32Range(0, 0xfffff).Draw(t, "minor")
		written := minor&0xff | major<<8 | minor>>8<<20 // new_encode_dev, include/linux/kdev_t.h
		name := rapid.StringN(0, 15, 15).Draw(t, "name")
		stat := fmt.Sprintf("12 (%s) S 1 12 12 %d 12 4194560 1", name, int32(written))
		device := unix.Mkdev(major, minor)
		require.Equal(t, written != 0, controls(stat, device), stat)
		require.False(t, controls(stat, device+1))
	})
	require.False(t, controls("", 0))
	require.False(t, controls("1 (x) S 1", 0))
}

func TestShare(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	which, files := share([3]*os.File{r, w, w})
	require.Equal(t, [3]int{1, 2, 2}, which)
	require.Equal(t, []int{int(r.Fd()), int(w.Fd())}, files)
}

func TestExecError(t *testing.T) {
	for errno, code := range map[unix.Errno]int{unix.ENOENT: 127, unix.ENOEXEC: 126} {
		var exit *exitError
		require.ErrorAs(t, execError(fmt.Errorf("exec: %w", &control.Error{Code: uint32(errno), Text: "why"})), &exit)
		require.Equal(t, code, exit.code)
		require.ErrorContains(t, exit.err, "why")
	}
	other := &control.Error{Code: uint32(unix.ESRCH)}
	require.Same(t, other, execError(other))
}
