package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long no answer may come at all.
const Patience = 30 * time.Second

// Errors of a load, wrapped.
var (
	ErrAnswer   = errors.New("a wrong answer")
	ErrPatience = fmt.Errorf("no answer for %v", Patience)
	ErrAllLost  = errors.New("no connection is left")

	errEmpty = errors.New("load: an empty request or answer")
)

// Load asks a server. All methods may be called by several goroutines.
type Load struct {
	exchange Exchange
	epoll    int
	wake     int // an eventfd that Stop and Close write to
	done     chan struct{}
	err      error // why it ended too early; valid after done
	finish   sync.Once

	mu sync.Mutex
	// +checklocks:mu
	conns []*conn // by number; nil when lost
	// +checklocks:mu
	asked int // connections that wait for an answer
	// +checklocks:mu
	alive int // connections that are not lost
	// +checklocks:mu
	ending, abandoned bool
	// +checklocks:mu
	phase phase
	// +checklocks:mu
	want uint64 // requests of the phase that reached waits for
	// +checklocks:mu
	reached chan struct{} // or nil
}

// conn is a connection, which is asked one thing at a time.
type conn struct {
	fd   int
	got  int // bytes of the answer
	sent time.Time
}

// Start opens so many connections and begins to ask on all of them. The caller
// calls Close.
func Start(ctx context.Context, dial func(context.Context) (net.Conn, error), connections int, e Exchange) (_ *Load, err error) {
	if len(e.Request) == 0 || len(e.Answer) == 0 {
		return nil, errEmpty
	}
	l := &Load{exchange: e, epoll: -1, wake: -1, done: make(chan struct{})}
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err = l.watch(l.wake, -1); err != nil {
		return nil, err
	}
	for n := range connections {
		if err = l.open(ctx, dial, n); err != nil {
			return nil, fmt.Errorf("connection %d: %w", n+1, err)
		}
	}
	if err = l.begin(); err != nil {
		return nil, err
	}
	go l.run()
	return l, nil
}

func (l *Load) watch(fd, number int) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)})
}

// open adds a connection.
func (l *Load) open(ctx context.Context, dial func(context.Context) (net.Conn, error), number int) error {
	fd, err := dialFD(ctx, dial)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.conns = append(l.conns, &conn{fd: fd})
	l.alive++
	l.mu.Unlock()
	return l.watch(fd, number)
}

// dialFD opens a connection, on a descriptor that Go's own poller does not know.
func dialFD(ctx context.Context, dial func(context.Context) (net.Conn, error)) (fd int, err error) {
	c, err := dial(ctx)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return -1, fmt.Errorf("%T is no TCP connection", c)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	var failed error
	err = raw.Control(func(own uintptr) { fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}

// begin asks on all connections.
func (l *Load) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase = newPhase()
	for n, c := range l.conns {
		l.ask(n, c)
	}
	if l.alive == 0 {
		return errors.Join(ErrAllLost, l.phase.First)
	}
	return nil
}

// ask sends the next request of a connection.
//
// +checklocks:l.mu
func (l *Load) ask(number int, c *conn) {
	c.got, c.sent = 0, time.Now()
	l.asked++
	// It is small, and nothing else is on its way: there is room.
	if n, err := unix.Write(c.fd, l.exchange.Request); n < len(l.exchange.Request) {
		l.lose(number, errors.Join(io.ErrShortWrite, err))
	}
}

// lose closes a connection whose request was not answered as it must be.
//
// +checklocks:l.mu
func (l *Load) lose(number int, why error) {
	l.phase.fail(fmt.Errorf("connection %d: %w", number+1, why))
	l.asked--
	l.closeConn(number)
}

// +checklocks:l.mu
func (l *Load) closeConn(number int) {
	_ = unix.Close(l.conns[number].fd)
	l.conns[number] = nil
	l.alive--
}

// run receives answers and asks again, until nothing is left to do.
func (l *Load) run() {
	defer close(l.done)
	defer l.release()
	events := make([]unix.EpollEvent, 64)
	buf := make([]byte, 256<<10)
	for {
		n, err := unix.EpollWait(l.epoll, events, int(Patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			l.err = fmt.Errorf("epoll: %w", err)
			return
		}
		if over, err := l.serve(events[:n], buf); over {
			l.err = err
			return
		}
	}
}

// serve deals with what has come; none says that nobody answers any more.
func (l *Load) serve(events []unix.EpollEvent, buf []byte) (over bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(events) == 0 {
		l.phase.Errors += uint64(l.asked)
		return true, ErrPatience
	}
	for i := range events {
		n := int(events[i].Fd)
		if n < 0 {
			_, _ = unix.Read(l.wake, buf[:8])
		} else if l.conns[n] != nil {
			l.receive(n, buf)
		}
	}
	if l.reached != nil && l.phase.Requests+l.phase.Errors >= l.want {
		close(l.reached)
		l.reached = nil
	}
	switch {
	case l.abandoned || l.ending && l.asked == 0:
		return true, nil
	case l.ending || l.alive > 0:
		return false, nil
	}
	return true, errors.Join(ErrAllLost, l.phase.First)
}

// receive takes what has come on a connection, and asks again after a whole answer.
//
// +checklocks:l.mu
func (l *Load) receive(number int, buf []byte) {
	c := l.conns[number]
	left := len(l.exchange.Answer) - c.got
	n, err := unix.Read(c.fd, buf[:min(len(buf), left)])
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return
	case err != nil:
		l.lose(number, err)
		return
	case n == 0:
		l.lose(number, io.ErrUnexpectedEOF)
		return
	case !l.exchange.holds(c.got, buf[:n]):
		l.lose(number, fmt.Errorf("%w: %.80q at byte %d", ErrAnswer, buf[:n], c.got))
		return
	}
	if c.got += n; n < left {
		return
	}
	l.phase.answered(c.sent, time.Now())
	l.asked--
	if l.ending {
		l.closeConn(number)
		return
	}
	l.ask(number, c)
}

// release closes all descriptors.
func (l *Load) release() {
	l.finish.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range l.conns {
			if c != nil {
				_ = unix.Close(c.fd)
			}
		}
		for _, fd := range []*int{&l.epoll, &l.wake} {
			if *fd >= 0 {
				_ = unix.Close(*fd)
				*fd = -1
			}
		}
	})
}

// Stop waits for the answers that are due, ends the load, and returns what was
// seen since the last Mark. Error: why the load had ended before.
func (l *Load) Stop() (Phase, error) {
	l.end(false)
	return l.Mark(), l.err
}

// Close ends the load without waiting for answers.
func (l *Load) Close() { l.end(true) }

func (l *Load) end(abandon bool) {
	l.mu.Lock()
	l.ending = true
	l.abandoned = l.abandoned || abandon
	if l.wake >= 0 {
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	l.mu.Unlock()
	<-l.done
}
