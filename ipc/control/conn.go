package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Peer is who the kernel says made the other end of a connection
// (SO_PEERCRED, unix(7)).
type Peer struct {
	PID      int32
	UID, GID uint32
}

// Envelope is a received message with its id and descriptors.
type Envelope struct {
	ID      uint32
	Message Message
	// Files are descriptors, with close-on-exec set. They are the receiver's.
	// They are not of type os.File, whose Fd makes what it returns blocking,
	// for all processes that share it.
	Files []int
}

// Close closes the files.
func (e *Envelope) Close() {
	for _, fd := range e.Files {
		_ = unix.Close(fd)
	}
	e.Files = nil
}

// Conn is one end of a connection. All methods may be called from any
// goroutine; Sends follow each other, and so do Receives.
type Conn struct {
	sock  *net.UnixConn
	peer  Peer
	files bool // descriptors are welcome

	// Who holds the token, a lock that can be given up on, sends or receives.
	sending, receiving chan struct{}
	buf, oob           []byte // what is received; buf is one byte longer than a message
}

// newConn takes sock over, also when it fails.
func newConn(sock *net.UnixConn, files bool) (*Conn, error) {
	c := &Conn{
		sock: sock, files: files,
		sending: make(chan struct{}, 1), receiving: make(chan struct{}, 1),
		buf: make([]byte, MaxMessage+1),
		oob: make([]byte, unix.CmsgSpace(4*(MaxFiles+1))),
	}
	if err := c.configure(); err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("control connection: %w", err)
	}
	return c, nil
}

func (c *Conn) configure() error {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr, rightsErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if !c.files {
			rightsErr = refuseFiles(fd)
		}
	})
	if err := errors.Join(err, credErr, rightsErr); err != nil {
		return err
	}
	c.peer = Peer{cred.Pid, cred.Uid, cred.Gid}
	return nil
}

// refuseFiles makes the kernel refuse descriptors sent to fd: even to close one
// of the sender's choice may block. Before Linux 6.16 they arrive and are closed.
func refuseFiles(fd uintptr) error {
	err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return err
}

// Peer returns who is at the other end: for a server, who connected; for a
// client, who listens.
func (c *Conn) Peer() Peer { return c.peer }

// Close ends the connection: Receive returns io.EOF at the other side and
// net.ErrClosed at this one.
func (c *Conn) Close() error { return c.sock.Close() }

// Send sends a message and duplicates of files, which stay the caller's and must
// be open until it returns. It blocks while the other side's buffer is full, until ctx is done. An error is
// ErrMessage, ctx's, or the connection's.
func (c *Conn) Send(ctx context.Context, id uint32, m Message, files ...int) error {
	b, err := encode(id, m, len(files))
	if err != nil {
		return err
	}
	return within(ctx, c.sending, c.sock.SetWriteDeadline, func() error {
		var oob []byte
		if len(files) > 0 {
			oob = unix.UnixRights(files...)
		}
		_, _, err := c.sock.WriteMsgUnix(b, oob, nil)
		return err
	})
}

// Receive waits for a message until ctx is done. io.EOF: the other side has
// closed the connection or died. After ErrProtocol or ErrVersion the connection
// is closed.
func (c *Conn) Receive(ctx context.Context) (env Envelope, err error) {
	err = within(ctx, c.receiving, c.sock.SetReadDeadline, func() (err error) {
		env, err = c.read()
		return err
	})
	if errors.Is(err, ErrProtocol) || errors.Is(err, ErrVersion) {
		_ = c.Close()
	}
	return env, err
}

func (c *Conn) read() (env Envelope, err error) {
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(c.buf, c.oob)
	if errors.Is(err, unix.ECONNRESET) {
		// Closed with messages unread. That is told once, before what was sent
		// last (unix_release_sock, __skb_try_recv_datagram).
		n, oobn, flags, _, err = c.sock.ReadMsgUnix(c.buf, c.oob)
	}
	// Descriptors come also with an empty message, which counts as the end.
	env.Files = takeFiles(c.oob[:oobn])
	defer func() {
		if err != nil {
			env.Close()
		}
	}()
	switch {
	case errors.Is(err, io.EOF):
		return env, io.EOF
	case err != nil:
		return env, err
	case flags&unix.MSG_TRUNC != 0:
		return env, fmt.Errorf("%w: longer than %d bytes", ErrProtocol, MaxMessage)
	case flags&unix.MSG_CTRUNC != 0:
		return env, fmt.Errorf("%w: not all its descriptors could be taken: more than %d, or too many open files", ErrProtocol, MaxFiles)
	case len(env.Files) > 0 && !c.files:
		return env, fmt.Errorf("%w: %d descriptors, which are not wanted here", ErrProtocol, len(env.Files))
	}
	env.ID, env.Message, err = decode(c.buf[:n], len(env.Files))
	return env, err
}

// takeFiles returns all descriptors in control messages.
func takeFiles(oob []byte) (files []int) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil // written by the kernel, this cannot be
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue // of another type
		}
		files = append(files, fds...)
	}
	return files
}

// within runs f, while it holds token, with ctx's end as the deadline that set
// sets.
func within(ctx context.Context, token chan struct{}, set func(time.Time) error, f func() error) error {
	select {
	case token <- struct{}{}:
		defer func() { <-token }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := set(time.Time{}); err != nil {
		return err
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(expired)
		_ = set(time.Unix(1, 0))
	})
	err := f()
	if !stop() {
		<-expired // it must not hit the next call
	}
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// Handshake exchanges Hellos and returns the other side's, whose Version must be
// the same. An *Error instead of a Hello is returned as the error.
func (c *Conn) Handshake(ctx context.Context, mine Hello) (Hello, error) {
	if err := c.Send(ctx, 0, mine); err != nil {
		return Hello{}, fmt.Errorf("handshake: %w", err)
	}
	env, err := c.Receive(ctx)
	if err != nil {
		return Hello{}, fmt.Errorf("handshake: %w", err)
	}
	switch m := env.Message.(type) {
	case *Error:
		return Hello{}, fmt.Errorf("handshake: refused: %w", m)
	case Hello:
		if m.Version != mine.Version {
			return m, fmt.Errorf("handshake: %w: %q has %d, this program %d", ErrVersion, m.Name, m.Version, mine.Version)
		}
		return m, nil
	}
	env.Close()
	return Hello{}, fmt.Errorf("handshake: %w: type %d instead of hello", ErrProtocol, env.Message.Type())
}
