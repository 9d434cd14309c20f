package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

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

// TestDrain: all that is there is written, and nothing is waited for.
func TestDrain(t *testing.T) {
	ours, theirs, err := openTerminal()
	require.NoError(t, err)
	defer ours.Close()
	defer theirs.Close()
	text := strings.Repeat("x", 3000)
	_, err = theirs.WriteString(text)
	require.NoError(t, err)
	var shown bytes.Buffer
	require.NoError(t, ours.SetReadDeadline(time.Unix(1, 0)))
	require.NoError(t, ours.SetReadDeadline(time.Time{}))
	drain(&shown, ours)
	require.Equal(t, text, shown.String())
}

func TestShellCode(t *testing.T) {
	require.Equal(t, 3, shellCode(3<<8))
	require.Equal(t, 128+9, shellCode(9))
}

// TestCarry: who stays behind with the terminal open holds up nobody, and what
// was shown is not lost.
func TestCarry(t *testing.T) {
	ours, theirs, err := openTerminal()
	require.NoError(t, err)
	defer ours.Close()
	c := exec.Command("sh", "-c", "trap '' HUP; sleep 1000 & seq 2000; read line; echo got-$line; exit 4")
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, theirs
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, c.Start())
	require.NoError(t, theirs.Close())
	defer func() { _ = unix.Kill(-c.Process.Pid, unix.SIGKILL) }()
	var shown bytes.Buffer
	user := struct {
		io.Reader
		io.Writer
	}{strings.NewReader("typed\n"), &shown}
	var exit *exitError
	require.ErrorAs(t, carry(c, ours, user, user), &exit)
	require.Equal(t, 4, exit.code)
	require.Contains(t, shown.String(), "\n2000\r\n")
	require.Contains(t, shown.String(), "got-typed\r\n")
}
