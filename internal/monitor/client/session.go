package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Session is the conversation about one program that was started with an "exec"
// order, between who ordered it and the instance, without the monitor: each is
// a message of its own. One goroutine may send while another receives.
type Session struct{ file *os.File }

// Messages of a Session.
type (
	// SessionSignal goes to the instance: a signal for the program.
	SessionSignal struct {
		Signal int `json:"signal"`
	}
	// SessionEnd comes from it at last: how the program ended.
	SessionEnd struct {
		Code   int `json:"exit_code"`
		Signal int `json:"exit_signal,omitempty"`
	}
)

// maxSessionMessage is longer than any of them.
const maxSessionMessage = 256

// sessionSendTime is how long the other side has to make room for a message.
const sessionSendTime = time.Second

// NewSession makes a session and the descriptor of its other end, which the
// caller closes when it is sent.
func NewSession() (*Session, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("session: %w", err)
	}
	return OpenSession(fds[0]), fds[1], nil
}

// OpenSession takes an end over. It makes no host call that an instance may not make.
func OpenSession(fd int) *Session {
	return &Session{os.NewFile(uintptr(fd), "session")}
}

// Send sends a message. It does not wait for long.
func (s *Session) Send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.file.SetWriteDeadline(time.Now().Add(sessionSendTime)); err != nil {
		return err
	}
	_, err = s.file.Write(b)
	return err
}

// Receive waits for a message and reads it into v. [io.EOF]: the other side is gone.
func (s *Session) Receive(v any) error {
	var b [maxSessionMessage]byte
	n, err := s.file.Read(b[:])
	if errors.Is(err, unix.ECONNRESET) {
		// The other side went and had not read everything. That is told once, before what it
		// sent last (unix_release_sock, __skb_try_recv_datagram).
		n, err = s.file.Read(b[:])
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b[:n], v); err != nil {
		return fmt.Errorf("session: broken message: %w", err)
	}
	return nil
}

// Close ends the session. The other side's Receive returns io.EOF.
func (s *Session) Close() error { return s.file.Close() }
