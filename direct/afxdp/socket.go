package afxdp

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Socket is a bound AF_XDP socket with its umem, for use by this process or by
// another one: whoever has its two files and its Geometry can be the user, one
// at a time (Adopt). It stays bound as long as anybody has the files or has
// them mapped, and what it has received waits for the next user.
//
// The user needs no privilege, and what it writes to the rings and the umem is
// its own harm: the kernel checks each descriptor against the umem, and the
// maker of a Socket reads none of it.
type Socket struct {
	Geometry
	socket, umem *os.File
}

// Target is what a Socket is bound to.
type Target struct {
	Link  *nic.Link
	Queue int
	// Frags: the XDP program handles frames of several buffers.
	Frags bool
	// RXMemory is how many bytes of memory are for receiving, at most, a power of
	// two; 0 is 2048 frames' worth.
	RXMemory uint32
	// Memory is for the Link's MTU and RXMemory. NewSocket takes it over, also when it
	// fails; with nil it gets its own.
	Memory *Memory
}

// geometry is that of a socket for it.
func (t *Target) geometry() Geometry {
	g := geometryFor(t.Link.Attrs().MTU, t.RXMemory)
	g.Queue = t.Queue
	return g
}

// geometryFor is that of a socket of queue 0.
func geometryFor(mtu int, rxMemory uint32) Geometry {
	g := Geometry{Chunk: chunkSizeFor(mtu), RXChunks: rxChunks, TXChunks: txChunks}
	if rxMemory != 0 {
		g.RXChunks = rxMemory / g.Chunk
	}
	return g
}

// NewSocket makes a socket and binds it, in the network namespace of the calling
// thread, which is the NIC's. Errors: nic.ErrUnsupported, ErrPermission, ErrInUse.
func NewSocket(ctx context.Context, to Target) (_ *Socket, err error) {
	if to.Memory != nil {
		defer to.Memory.Close() // if it has not been used
	}
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("%w: this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)", nic.ErrUnsupported)
	}
	if err != nil {
		return nil, nic.Denied(err, "open an AF_XDP socket", "CAP_NET_RAW")
	}
	s := &Socket{Geometry: to.geometry(), socket: os.NewFile(uintptr(fd), "AF_XDP")}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if err = s.check(); err != nil {
		return nil, err
	}
	if err = s.setUpMemory(fd, to.Memory); err != nil {
		return nil, err
	}
	if err = s.bind(ctx, fd, to); err != nil {
		return nil, err
	}
	s.setUpTransmit(fd)
	return s, nil
}

// Files returns the socket's files, which stay the Socket's.
func (s *Socket) Files() [FilesPerQueue]int {
	return [FilesPerQueue]int{int(s.socket.Fd()), int(s.umem.Fd())}
}

// Close gives this process's files up.
func (s *Socket) Close() error {
	err := s.socket.Close()
	if s.umem != nil {
		err = errors.Join(err, s.umem.Close())
	}
	return err
}

// setUpMemory makes umem and rings. The kernel keeps the umem's pages, so no
// mapping of it need stay here.
func (s *Socket) setUpMemory(fd int, ready *Memory) (err error) {
	if ready == nil || ready.size != s.size() {
		if ready, err = newMemory(s.size()); err != nil {
			return err
		}
	}
	var mem mapping
	s.umem, mem = ready.take()
	defer mem.free()
	if err := s.register(fd, mem); err != nil {
		return err
	}
	for _, o := range []struct {
		opt int
		n   uint32
	}{
		{unix.XDP_UMEM_FILL_RING, s.RXChunks}, {unix.XDP_RX_RING, s.RXChunks},
		{unix.XDP_UMEM_COMPLETION_RING, s.TXChunks}, {unix.XDP_TX_RING, s.TXChunks},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, o.opt, int(o.n)); err != nil {
			return fmt.Errorf("make an AF_XDP ring: %w", err)
		}
	}
	return nil
}

// register makes mem the socket's umem, with room for transmit metadata if the
// kernel knows that (Linux 6.8).
func (s *Socket) register(fd int, mem mapping) error {
	s.TXChecksum = true
	err := registerUmem(fd, mem, s.Chunk, txMetadata)
	if errors.Is(err, unix.EINVAL) {
		s.TXChecksum = false
		err = registerUmem(fd, mem, s.Chunk, 0)
	}
	if errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("%w: lock %d bytes for a umem: it needs CAP_IPC_LOCK or a higher limit (ulimit -l)", nic.ErrPermission, mem.size)
	}
	return nic.Denied(err, "register a umem", "CAP_IPC_LOCK")
}

// bind joins the socket to the NIC's queue: zero-copy if the driver can.
func (s *Socket) bind(ctx context.Context, fd int, to Target) error {
	l := to.Link
	flags := uint16(unix.XDP_USE_NEED_WAKEUP)
	if to.Frags {
		flags |= unix.XDP_USE_SG
	}
	address := &unix.SockaddrXDP{Flags: flags, Ifindex: uint32(l.Attrs().Index), QueueID: uint32(to.Queue)}
	err := nic.Retry(ctx, func() error {
		err := unix.Bind(fd, address)
		if errors.Is(err, unix.EBUSY) {
			return l.InUse(0)
		}
		return nic.Denied(err, fmt.Sprintf("bind AF_XDP to %s queue %d", l.Name(), to.Queue), "CAP_NET_RAW")
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", nic.ErrUnsupported, err)
	}
	if err != nil {
		return err
	}
	options, err := unix.GetsockoptInt(fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	if err != nil {
		return fmt.Errorf("ask whether %s is zero-copy: %w", l.Name(), err)
	}
	s.ZeroCopy = options&unix.XDP_OPTIONS_ZEROCOPY != 0
	if s.ZeroCopy {
		// Whether the hardware fills checksums in is not known.
		s.TXChecksum = false
	}
	return nil
}

// setUpTransmit lets one system call send everything that is queued.
func (s *Socket) setUpTransmit(fd int) {
	// Linux 6.17 has the option; before it a call sends at most 32 frames.
	_ = unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, txChunks)
	// In copy mode all frames on their way count against the send buffer.
	const sendBuffer = txChunks * 16 << 10
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
}
