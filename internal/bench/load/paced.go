package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Paced asks on one connection of its own for a time, each request so long after
// the answer to the one before. It does so on a thread of its own that blocks, so
// that a latency holds as little of Go's scheduler as can be. An answer that is
// wrong or missing is an error.
func Paced(ctx context.Context, dial func(context.Context) (net.Conn, error), e Exchange, pause, length time.Duration) (Phase, error) {
	if len(e.Request) == 0 || len(e.Answer) == 0 {
		return Phase{}, errEmpty
	}
	fd, err := blocking(ctx, dial)
	if err != nil {
		return Phase{}, err
	}
	defer unix.Close(fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := newPhase()
	got := make([]byte, len(e.Answer))
	for ctx.Err() == nil && time.Since(p.began) < length {
		sent := time.Now()
		if err := askOnce(fd, &e, got); err != nil {
			return p.Phase, err
		}
		p.answered(sent, time.Now())
		rest := unix.NsecToTimespec(int64(pause))
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &rest, nil) // too short for a signal's sake is no harm
	}
	p.Took = time.Since(p.began)
	slices.Sort(p.latencies)
	return p.Phase, ctx.Err()
}

// blocking opens a connection whose reads wait in the kernel, for Patience.
func blocking(ctx context.Context, dial func(context.Context) (net.Conn, error)) (fd int, err error) {
	fd, err = dialFD(ctx, dial)
	if err != nil {
		return -1, err
	}
	patience := unix.NsecToTimeval(int64(Patience))
	err = errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience))
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// askOnce asks and compares the answer, for which got has room.
func askOnce(fd int, e *Exchange, got []byte) error {
	if n, err := unix.Write(fd, e.Request); n < len(e.Request) {
		return errors.Join(io.ErrShortWrite, err)
	}
	for at := 0; at < len(got); {
		n, err := unix.Read(fd, got[at:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return ErrPatience
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		case !e.holds(at, got[at:at+n]):
			return fmt.Errorf("%w: %.80q at byte %d", ErrAnswer, got[at:at+n], at)
		}
		at += max(n, 0)
	}
	return nil
}
