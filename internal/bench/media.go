package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"junction/internal/lab"
	"junction/ipc"
)

// ringPort is an end of a ring pair.
type ringPort struct {
	end    *ipc.End
	sleep  bool
	parts  [1][]byte
	frames [64][]byte
	tx, rx int // spins
	pair   *ipc.Pair
}

// openRing makes a pair of rings between two ends that sleep or spin.
func openRing(sleep bool) func(*lab.Lab, int) (port, port, error) {
	return func(*lab.Lab, int) (near, far port, err error) {
		pair, err := ipc.NewPair(ipc.Options{})
		if err != nil {
			return nil, nil, err
		}
		a, err := pair.Attach(ipc.ServerSide)
		if err != nil {
			return nil, nil, errors.Join(err, pair.Close())
		}
		b, err := pair.Attach(ipc.InstanceSide)
		if err != nil {
			return nil, nil, errors.Join(err, a.Close(), pair.Close())
		}
		return &ringPort{end: a, sleep: sleep, pair: pair}, &ringPort{end: b, sleep: sleep}, nil
	}
}

func (p *ringPort) put(frame []byte) error {
	p.parts[0] = frame
	for {
		err := p.end.Transmit(nil, p.parts[:])
		if !errors.Is(err, ipc.ErrFull) {
			return err
		}
		if err := p.end.Flush(); err != nil {
			return err
		}
		if !p.sleep {
			pause(&p.tx)
		} else if err := p.end.TransmitWait(); err != nil {
			return err
		}
	}
}

func (p *ringPort) flush() error { return p.end.Flush() }

func (p *ringPort) take() (int, error) {
	for {
		n, err := p.end.Receive(p.frames[:])
		if n > 0 || err != nil {
			p.end.Release()
			return n, err
		}
		if !p.sleep {
			pause(&p.rx)
		} else if err := p.end.Wait(); err != nil {
			return 0, err
		}
	}
}

func (p *ringPort) close() {
	_ = p.end.Close()
	if p.pair != nil {
		_ = p.pair.Close()
	}
}

// channelPort is an end of two channels, with what is free on the way back.
type channelPort struct {
	out, in   *channel
	buf       []byte
	closed    chan struct{}
	closeOnce *sync.Once
}

type channel struct{ full, free chan []byte }

// channelDepth is how many frames are on the way at most.
const channelDepth = 512

func openChannel(_ *lab.Lab, size int) (near, far port, err error) {
	var c [2]*channel
	for i := range c {
		c[i] = &channel{make(chan []byte, channelDepth), make(chan []byte, channelDepth)}
		for range channelDepth {
			c[i].free <- make([]byte, size)
		}
	}
	closed, once := make(chan struct{}), new(sync.Once)
	return &channelPort{c[0], c[1], make([]byte, size), closed, once}, &channelPort{c[1], c[0], make([]byte, size), closed, once}, nil
}

func (p *channelPort) put(frame []byte) error {
	select {
	case b := <-p.out.free:
		copy(b, frame)
		p.out.full <- b // there is room for all
		return nil
	case <-p.closed:
		return net.ErrClosed
	}
}

func (p *channelPort) flush() error { return nil }

func (p *channelPort) take() (int, error) {
	select {
	case b := <-p.in.full:
		copy(p.buf, b)
		p.in.free <- b
		return 1, nil
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p *channelPort) close() { p.closeOnce.Do(func() { close(p.closed) }) }

// socketPort is a blocking socket that keeps frames apart.
type socketPort struct {
	fd   int
	buf  []byte
	mu   sync.RWMutex // held while in use; closing waits
	over chan struct{}
	once sync.Once
}

func newSocketPort(fd, size int) *socketPort {
	return &socketPort{fd: fd, buf: make([]byte, size), over: make(chan struct{})}
}

func openSeqpacket(_ *lab.Lab, size int) (near, far port, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return newSocketPort(fds[0], size), newSocketPort(fds[1], size), nil
}

func (p *socketPort) put(frame []byte) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for {
		if p.ended() {
			return net.ErrClosed
		}
		_, err := unix.SendmsgN(p.fd, frame, nil, nil, unix.MSG_NOSIGNAL)
		// A datagram that finds nobody, or no room, is lost.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOBUFS) {
			continue
		}
		return err
	}
}

func (p *socketPort) flush() error { return nil }

func (p *socketPort) take() (int, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for silent := 0; silent < patience; {
		if p.ended() {
			return 0, net.ErrClosed
		}
		n, err := unix.Read(p.fd, p.buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNREFUSED):
			continue
		case errors.Is(err, unix.EAGAIN): // SO_RCVTIMEO
			silent++
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return 1, nil
	}
	return 0, errLost
}

func (p *socketPort) ended() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

// close ends waits of either direction: shutdown does, where there is a
// connection, and the time limit where there is none.
func (p *socketPort) close() {
	p.once.Do(func() {
		close(p.over)
		_ = unix.Shutdown(p.fd, unix.SHUT_RDWR)
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = unix.Close(p.fd)
	})
}

// A socket without a connection looks every receiveTime whether it has been
// closed, and gives a datagram up for lost after patience of these.
var receiveTime = unix.Timeval{Usec: 100_000}

const patience = 300

// udpPort is the port of both ends.
const udpPort = 7000

// openUDP makes sockets on both sides of the lab's veth.
func openUDP(l *lab.Lab, size int) (near, far port, err error) {
	if err := l.Server.AddAddr(lab.ServerNIC, serverAddr); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, nil, err
	}
	a, err := udpSocket(l.Client, lab.ClientAddr4.Addr(), address())
	if err != nil {
		return nil, nil, err
	}
	b, err := udpSocket(l.Server, address(), lab.ClientAddr4.Addr())
	if err != nil {
		return nil, nil, errors.Join(err, unix.Close(a))
	}
	return newSocketPort(a, size), newSocketPort(b, size), nil
}

func udpSocket(ns *lab.Namespace, from, to netip.Addr) (fd int, err error) {
	err = ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		err = errors.Join(
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &receiveTime),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Port: udpPort, Addr: from.As4()}),
			unix.Connect(fd, &unix.SockaddrInet4{Port: udpPort, Addr: to.As4()}),
		)
		if err != nil {
			err = errors.Join(fmt.Errorf("socket %v to %v: %w", from, to, err), unix.Close(fd))
		}
		return err
	})
	return fd, err
}
