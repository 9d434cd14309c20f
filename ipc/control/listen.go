package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse: another process answers at the path.
var ErrInUse = errors.New("control socket is in use")

// ListenOptions are the parameters of Listen.
type ListenOptions struct {
	// Mode is who may connect, by write permission. Default 0600.
	Mode fs.FileMode
	// Files: clients may send descriptors.
	Files bool
	// MaxConns is how many connections are served at a time; others wait to be
	// accepted. Default 1024.
	MaxConns int
}

// Listener accepts connections at a path in the file system.
type Listener struct {
	sock    *net.UnixListener
	path    string
	opts    ListenOptions
	inode   uint64
	refused atomic.Uint64
}

// Listen listens at path. A socket that nobody answers at is replaced; ErrInUse
// is returned if somebody does.
func Listen(ctx context.Context, path string, o ListenOptions) (*Listener, error) {
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	if o.MaxConns == 0 {
		o.MaxConns = 1024
	}
	if err := vacant(ctx, path); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l, err := listen(ctx, path, o)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return l, nil
}

// vacant returns nil if path does not exist or is a socket without a listener.
func vacant(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something that is no socket is there; remove it or take another path")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err == nil {
		_ = c.Close()
		err = errors.New("it accepts connections")
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return fmt.Errorf("%w: stop the process that listens there, or take another path (%w)", ErrInUse, err)
}

// listen binds to a temporary name first, so that the socket has its mode before
// anybody can find it, and never a moment without a name.
func listen(ctx context.Context, path string, o ListenOptions) (*Listener, error) {
	temp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var config net.ListenConfig
	sock, err := config.Listen(ctx, "unixpacket", temp)
	if err != nil {
		return nil, err
	}
	l := &Listener{sock: sock.(*net.UnixListener), path: path, opts: o}
	l.sock.SetUnlinkOnClose(false)
	if err := l.publish(temp); err != nil {
		_ = l.sock.Close()
		_ = os.Remove(temp)
		return nil, err
	}
	return l, nil
}

// publish gives the socket its mode and its name.
func (l *Listener) publish(temp string) error {
	if !l.opts.Files {
		// From Linux 6.16 on, connections inherit it before anything is sent.
		raw, err := l.sock.SyscallConn()
		if err != nil {
			return err
		}
		var refuse error
		err = raw.Control(func(fd uintptr) { refuse = refuseFiles(fd) })
		if err := errors.Join(err, refuse); err != nil {
			return err
		}
	}
	if err := os.Chmod(temp, l.opts.Mode); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(temp, &st); err != nil {
		return err
	}
	l.inode = st.Ino
	return os.Rename(temp, l.path)
}

// Close stops listening and removes the socket, unless it is another's by now.
// Connections go on.
func (l *Listener) Close() error {
	var st unix.Stat_t
	if unix.Lstat(l.path, &st) == nil && st.Ino == l.inode {
		_ = os.Remove(l.path)
	}
	return l.sock.Close()
}

// Refused returns how many connections could not be set up.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

// retryAfter is how long to wait for memory or descriptors: of these no event
// tells when there are some again.
const retryAfter = 10 * time.Millisecond

// Serve calls handle for each connection, in a goroutine of its own, and closes
// the connection when it returns. It goes on until ctx, which handle gets too,
// is done or Close is called; then it waits for all of them.
func (l *Listener) Serve(ctx context.Context, handle func(context.Context, *Conn)) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	room := make(chan struct{}, l.opts.MaxConns)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		sock, err := l.accept(ctx)
		if err != nil {
			return err
		}
		if sock == nil {
			return nil
		}
		handlers.Go(func() {
			defer func() { <-room }()
			l.serve(ctx, sock, handle)
		})
	}
}

// accept returns nil when the listener has been closed.
func (l *Listener) accept(ctx context.Context) (*net.UnixConn, error) {
	for {
		sock, err := l.sock.AcceptUnix()
		switch {
		case err == nil:
			return sock, nil
		case errors.Is(err, net.ErrClosed):
			return nil, nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			l.refused.Add(1)
			select {
			case <-time.After(retryAfter):
			case <-ctx.Done():
				return nil, nil
			}
		default:
			return nil, fmt.Errorf("accept at %s: %w", l.path, err)
		}
	}
}

func (l *Listener) serve(ctx context.Context, sock *net.UnixConn, handle func(context.Context, *Conn)) {
	c, err := newConn(sock, l.opts.Files)
	if err != nil {
		l.refused.Add(1)
		return
	}
	defer c.Close()
	handle(ctx, c)
}

// Dial connects to the listener at path. Descriptors are welcome.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	sock, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return newConn(sock.(*net.UnixConn), true)
}
