package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// ownTerminal is set in the environment of a command that has a terminal of its own.
const ownTerminal = "JUNCTION_CTL_OWN_TERMINAL"

// onOwnTerminal runs this command again, on a terminal of its own that it
// carries to and from the user's, as script(1) does, and returns how it ended.
// An instance never gets the user's terminal: it could be the one in whose
// background the instance runs, which the kernel would stop at its first read.
func onOwnTerminal(ctx context.Context, streams [3]*os.File) (err error) {
	ours, theirs, err := openTerminal()
	if err != nil {
		return err
	}
	defer ours.Close()
	c := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	c.Cancel = func() error { return nil } // signals are passed on, below
	c.Args[0], c.Env = os.Args[0], append(os.Environ(), ownTerminal+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // descriptor 0
	screen, instead := streams[0], streams
	for n := len(streams) - 1; n >= 0; n-- {
		if isTerminal(streams[n]) {
			instead[n] = theirs
			if n > 0 {
				screen = streams[n] // the first may be open for reading only
			}
		}
	}
	c.Stdin, c.Stdout, c.Stderr = instead[0], instead[1], instead[2]
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	resize(streams[0], ours)
	before, err := term.MakeRaw(int(streams[0].Fd()))
	if err != nil {
		return errors.Join(err, theirs.Close())
	}
	defer func() { err = errors.Join(err, term.Restore(int(streams[0].Fd()), before)) }()
	err = c.Start()
	_ = theirs.Close()
	if err != nil {
		return err
	}
	go func() {
		for sig := range signals {
			if sig == unix.SIGWINCH {
				resize(streams[0], ours)
				continue
			}
			_ = c.Process.Signal(sig) // it may have just ended
		}
	}()
	return carry(c, ours, streams[0], screen)
}

// openTerminal makes a terminal of which ours can be read with a deadline: the
// library's own is in blocking mode, and becomes so again whenever it looks at it.
func openTerminal() (ours, theirs *os.File, err error) {
	blocking, theirs, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return os.NewFile(uintptr(fd), blocking.Name()), theirs, nil
}

// resize gives a terminal, of which to is our end, the size of another.
func resize(from, to *os.File) {
	size, err := unix.IoctlGetWinsize(int(from.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return // it has none
	}
	if conn, err := to.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	}
}

// carry carries what is typed and shown until the command ends.
func carry(c *exec.Cmd, ours *os.File, keyboard, screen io.ReadWriter) error {
	go func() { _, _ = io.Copy(ours, keyboard) }() // until this process ends
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		_, _ = io.Copy(screen, ours) // EIO: nobody has the other side any more
	}()
	err := c.Wait()
	// A program that stays behind may have it for long; what the one that ended
	// wrote is there.
	_ = ours.SetReadDeadline(time.Unix(1, 0))
	<-shown
	_ = ours.SetReadDeadline(time.Time{})
	drain(screen, ours)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &exitError{code: shellCode(exit.Sys().(syscall.WaitStatus))}
	}
	return err
}

func shellCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return exitSignalled + int(s.Signal())
	}
	return s.ExitStatus()
}

// drain writes what can be read without waiting.
func drain(to io.Writer, from *os.File) {
	conn, err := from.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4096)
	for n := 1; n > 0; {
		var rerr error
		if err := conn.Read(func(fd uintptr) bool {
			n, rerr = unix.Read(int(fd), buf)
			return true
		}); err != nil || rerr != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
