package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal is an instance whose standard streams are a terminal.
type terminal struct {
	*instance
	pty    *os.File // our end
	screen *output  // what the terminal shows
	typed  int      // how much of the screen earlier steps have seen
}

// startTerminal starts junction_run as the foreground program of a terminal.
func startTerminal(t *testing.T, engine string, program ...string) *terminal {
	t.Helper()
	c := exec.Command(junctionRun, args(isolated(engine, "--env", "PS1=prompt> ", "--env", "TERM=dumb", "--env", "HISTFILE="), program)...)
	return atTerminal(t, c, c)
}

// atTerminal starts c through s as the foreground program of a terminal.
func atTerminal(t *testing.T, s starter, c *exec.Cmd) *terminal {
	t.Helper()
	ours, theirs := openTerminal(t)
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, theirs
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	x := &terminal{pty: ours, screen: newOutput()}
	x.resize(t, 24, 80)
	x.instance = launch(t, s, c)
	theirs.Close()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buf := make([]byte, 4096)
		for {
			n, err := ours.Read(buf)
			_, _ = x.screen.Write(buf[:n])
			if err != nil {
				return // EIO: the last program has closed the terminal
			}
		}
	}()
	t.Cleanup(func() {
		x.kill()
		ours.Close()
		<-copied
		if t.Failed() {
			t.Logf("--- screen\n%s", x.screen)
		}
	})
	return x
}

// expect waits until the terminal shows text after what earlier steps have seen.
func (x *terminal) expect(text string) {
	x.t.Helper()
	x.awaitCond(x.screen, func(s string) bool { return strings.Contains(s[x.typed:], text) }, "terminal text "+text)
	x.typed += strings.Index(x.screen.String()[x.typed:], text) + len(text)
}

// openTerminal makes a pseudo-terminal (pty(7)). Reads of our end can be
// ended by closing it.
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	ours = os.NewFile(uintptr(fd), "/dev/ptmx")
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	theirs, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return ours, theirs
}

// resize changes the window's size. The kernel sends SIGWINCH.
func (x *terminal) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	c, err := x.pty.SyscallConn()
	require.NoError(t, err)
	var failed error
	require.NoError(t, c.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}))
	require.NoError(t, failed)
}

// send types text.
func (x *terminal) send(text string) {
	x.t.Helper()
	_, err := x.pty.WriteString(text)
	require.NoError(x.t, err)
}

// TestShell uses bash as at a terminal: its line editor, job control with ^C and
// ^Z, changes of the window's size, end with ^D.
func TestShell(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		x := startTerminal(t, engine, "bash", "--norc", "--noprofile", "-i")
		x.expect("prompt> ")
		require.NotContains(t, x.screen.String(), "no job control")

		x.send("tty -s && echo is-a-$((6*7))-tty; stty size\r")
		x.expect("is-a-42-tty")
		x.expect("24 80")
		x.expect("prompt> ")

		// A built-in waits, as the Sentry's execve discards stop signals that race with it.
		const wait = "sh -c 'echo in-the-$((0))-foreground; read line'\r"
		x.send(wait)
		x.expect("in-the-0-foreground")
		x.send("\x03")
		x.expect("prompt> ")
		x.send("echo status $?\r")
		x.expect("status 130")

		x.send(wait)
		x.expect("in-the-0-foreground")
		x.send("\x1a")
		x.expect("Stopped")
		x.send("kill %1; fg; echo after-$((0))-fg\r")
		x.expect("after-0-fg")
		x.expect("prompt> ") // before it readline reads the size, and sets it again

		x.resize(t, 50, 132)
		x.send("stty size\r")
		x.expect("50 132")
		x.expect("prompt> ")
		x.send("exit 5\r")
		require.Equal(t, 5, x.exit())
	})
}

// TestWindowSize expects the program to be told when the window changes.
func TestWindowSize(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		x := startTerminal(t, engine, guest, "signals")
		x.expect("ready")
		x.resize(t, 30, 90)
		x.expect("SIGWINCH")
		x.send("\x1c") // ^\
		x.expect("SIGQUIT")
		x.send("\x03")
		x.expect("SIGINT")
		x.signal(syscall.SIGTERM)
		require.Equal(t, 7, x.exit())
	})
}

// TestEndOfTerminal ends a program with ^D.
func TestEndOfTerminal(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		x := startTerminal(t, engine, "cat")
		x.send("line\r")
		x.expect("line\r\nline\r\n")
		x.send("\x04")
		require.Zero(t, x.exit())
	})
}

// TestHangup expects the program to be told when the terminal goes away.
func TestHangup(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		x := startTerminal(t, engine, "sh", "-c", "echo ready; exec sleep 1000")
		x.expect("ready")
		x.pty.Close()
		require.Equal(t, 128+int(syscall.SIGHUP), x.exit())
	})
}

// TestEditor edits a file with vim at a terminal.
func TestEditor(t *testing.T) {
	vim := need(t, "vim")
	eachEngine(t, func(t *testing.T, engine string) {
		x := startTerminal(t, engine, "sh", "-c", "cd /tmp && seq 1 100 > f && TERM=xterm "+vim+" -Nu NONE f; clear; tail -n 2 f; wc -l < f")
		x.expect("100L") // the file's size in the bottom line
		x.send("Gihello \x1b")
		x.send("yyp:1,3d\r:%s/hello/bye/g | wq\r")
		x.expect("bye 100\r\nbye 100\r\n98\r\n")
		require.Zero(t, x.exit())
	})
}
