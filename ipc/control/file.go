package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ListenFile binds a listening socket to path and returns its descriptor, for
// another process to accept on by FromFile. Whoever holds it, and nobody else, is
// found at path. The caller removes path.
func ListenFile(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	const backlog = 4
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, backlog)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", path, err), f.Close())
	}
	return f, nil
}

// FromFile makes a Listener of what ListenFile returned in another process. It
// takes fd over, also when it fails.
func FromFile(fd int) (*Listener, error) {
	f := os.NewFile(uintptr(fd), "control listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("control listener: %w", err)
	}
	sock, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("control listener: %w: not a Unix socket", ErrProtocol), l.Close())
	}
	sock.SetUnlinkOnClose(false)
	return &Listener{sock: sock, opts: ListenOptions{Files: true}}, nil
}

// Accept waits for one connection, instead of Serve. After Close it returns
// net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	if err := l.sock.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.sock.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sock, err := l.sock.AcceptUnix()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return newConn(sock, l.opts.Files)
}
