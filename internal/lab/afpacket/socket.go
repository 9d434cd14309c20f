// Package afpacket sends and receives whole Ethernet frames on a network
// interface through packet(7) sockets, for the lab's own tools and for tests
// that look at a wire.
package afpacket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxFrame is the longest frame a Socket handles, in bytes: 64 KiB as the
// kernel's own segments have, with Ethernet and VLAN headers.
const MaxFrame = 65536 + 14 + 8

// receiveBuffer is how much may wait in a socket, in bytes, counted as the kernel
// does (a small frame takes about 768).
const receiveBuffer = 32 << 20

var (
	// ErrTooLong says that a frame did not fit the buffer. It is lost.
	ErrTooLong = errors.New("afpacket: frame longer than the buffer")
	// ErrPartialChecksum says that a frame was received whose checksum the kernel
	// left to a NIC. It is lost: switch the sender's offloads off.
	ErrPartialChecksum = errors.New("afpacket: frame with a partial checksum")
)

// Options of a Socket.
type Options struct {
	// SendOnly receives nothing.
	SendOnly bool
	// VnetHdr puts a 10-byte struct virtio_net_hdr in front of each frame in both
	// directions, so that frames with partial checksums and segments longer than
	// the MTU can pass (PACKET_VNET_HDR).
	VnetHdr bool
	// Filter, if not nil, is a classic BPF program that says which frames are
	// received (socket(7), SO_ATTACH_FILTER).
	Filter []unix.SockFilter
}

// Socket is bound to one interface. One goroutine may receive while another
// sends; Close and SetReceiveDeadline may be called from anywhere.
type Socket struct {
	file    *os.File
	conn    syscall.RawConn
	vnet    bool
	receive receiver
	send    sender
}

// Open binds a socket to an interface of the calling thread's network namespace.
// What this machine sends on the interface is not received. Close it.
func Open(ifname string, o Options) (*Socket, error) {
	nic, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("afpacket: interface %s: %w", ifname, err)
	}
	// Protocol 0: nothing arrives from other interfaces before the bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("afpacket: socket (needs CAP_NET_RAW): %w", err)
	}
	if err := bind(fd, nic.Index, o); err != nil {
		return nil, errors.Join(fmt.Errorf("afpacket: bind to %s: %w", ifname, err), unix.Close(fd))
	}
	s := &Socket{file: os.NewFile(uintptr(fd), "packet socket on "+ifname), vnet: o.VnetHdr}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.receive.init()
	s.send.init()
	return s, nil
}

func bind(fd, ifindex int, o Options) error {
	options := []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer},
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, toInt(o.VnetHdr)},
	}
	for _, opt := range options {
		if err := unix.SetsockoptInt(fd, opt.level, opt.name, opt.value); err != nil {
			return fmt.Errorf("socket option %d: %w", opt.name, err)
		}
	}
	if len(o.Filter) > 0 {
		program := unix.SockFprog{Len: uint16(len(o.Filter)), Filter: &o.Filter[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
	}
	protocol := uint16(unix.ETH_P_ALL)
	if o.SendOnly {
		protocol = 0
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: protocol<<8 | protocol>>8})
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Receive stores the next frame in buf and returns its length, waiting if
// there is none. A VLAN tag that the kernel had taken off is put in again. It
// returns ErrTooLong or ErrPartialChecksum for a frame that is lost, and errors
// that are os.ErrDeadlineExceeded and os.ErrClosed.
func (s *Socket) Receive(buf []byte) (int, error) {
	r := &s.receive
	r.buf = buf
	if err := s.conn.Read(r.try); err != nil {
		return 0, pollError(err)
	}
	if r.err != nil {
		return 0, fmt.Errorf("afpacket: receive: %w", r.err)
	}
	return r.frame(s.vnet)
}

// pollError gives the poller's error a name: a raw connection's is not os.ErrClosed.
func pollError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("afpacket: %w (%v)", os.ErrClosed, err)
}

// SetReceiveDeadline makes Receive return os.ErrDeadlineExceeded at t; the zero
// time takes the deadline away.
func (s *Socket) SetReceiveDeadline(t time.Time) error { return s.file.SetReadDeadline(t) }

// Send transmits one frame. An error, such as unix.EMSGSIZE or unix.ENOBUFS,
// concerns that frame alone.
func (s *Socket) Send(frame []byte) error {
	w := &s.send
	w.frame = frame
	if err := s.conn.Write(w.try); err != nil {
		return pollError(err)
	}
	return w.err
}

// Dropped returns how many frames found no room in the socket since the last
// call.
func (s *Socket) Dropped() (n uint64, err error) {
	err2 := s.conn.Control(func(fd uintptr) {
		var st *unix.TpacketStats
		if st, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			n = uint64(st.Drops)
		}
	})
	return n, errors.Join(err, err2)
}

// Close makes waiting calls return and frees the socket.
func (s *Socket) Close() error { return s.file.Close() }
