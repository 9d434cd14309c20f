package afxdp

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Sizes of a queue in chunks. Each ring has room for all chunks that can be in
// it, so that none is ever full.
const (
	rxChunks = 2048
	txChunks = 512

	smallChunk = 2048
	largeChunk = 4096 // the largest the kernel takes, a page
)

// chunkSizeFor returns the smallest chunk size in which a frame of the given
// MTU fits behind the headroom that the kernel leaves in front of it.
func chunkSizeFor(mtu int) uint32 {
	if unix.XDP_PACKET_HEADROOM+mtu+nic.EthHdrLen+nic.VLANTagLen <= smallChunk {
		return smallChunk
	}
	return largeChunk
}

// openQueue makes queue id of d. The NIC is in the calling thread's namespace.
func openQueue(ctx context.Context, d *Device, id int) (q *Queue, err error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("%w: this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)", nic.ErrUnsupported)
	}
	if err != nil {
		return nil, nic.Denied(err, "open an AF_XDP socket", "CAP_NET_RAW")
	}
	q = &Queue{dev: d, id: id, fd: fd, epoll: -1}
	if err = q.life.Init(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make a doorbell: %w", err)
	}
	defer func() {
		q.freeLater()
		if err != nil {
			q.close()
			q = nil
		}
	}()
	if err = q.life.AddRX(fd); err != nil {
		return
	}
	if id == 0 {
		if err = q.life.AddRX(d.watch.FD()); err != nil {
			return
		}
	}
	if err = q.setUpMemory(); err != nil {
		return
	}
	if err = q.bind(ctx); err != nil {
		return
	}
	err = q.setUpTransmit()
	return
}

// setUpMemory makes and maps umem and rings and stocks the fill ring.
func (q *Queue) setUpMemory() error {
	size := chunkSizeFor(q.dev.link.Attrs().MTU)
	umem, err := mapAnonymous(uintptr(size) * (rxChunks + txChunks))
	if err != nil {
		return fmt.Errorf("get memory for a umem: %w", err)
	}
	q.maps = append(q.maps, umem)
	if err := q.register(umem, size); err != nil {
		return err
	}
	for _, o := range []struct{ opt, n int }{
		{unix.XDP_UMEM_FILL_RING, rxChunks}, {unix.XDP_RX_RING, rxChunks},
		{unix.XDP_UMEM_COMPLETION_RING, txChunks}, {unix.XDP_TX_RING, txChunks},
	} {
		if err := unix.SetsockoptInt(q.fd, unix.SOL_XDP, o.opt, o.n); err != nil {
			return fmt.Errorf("make an AF_XDP ring: %w", err)
		}
	}
	if err := q.mapRings(); err != nil {
		return err
	}
	q.initSides(umem.bytes(), uint(bits.TrailingZeros32(size)))
	q.r.release()
	return nil
}

// register makes umem the socket's, with room for transmit metadata if the
// kernel knows that (Linux 6.8).
func (q *Queue) register(umem mapping, chunk uint32) error {
	q.t.offloads.TXChecksum = true
	err := registerUmem(q.fd, umem, chunk, txMetadata)
	if errors.Is(err, unix.EINVAL) {
		q.t.offloads.TXChecksum = false
		err = registerUmem(q.fd, umem, chunk, 0)
	}
	if errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("%w: lock %d bytes for a umem: it needs CAP_IPC_LOCK or a higher limit (ulimit -l)", nic.ErrPermission, umem.size)
	}
	return nic.Denied(err, "register a umem", "CAP_IPC_LOCK")
}

func (q *Queue) mapRings() error {
	off, err := ringOffsets(q.fd)
	if err != nil {
		return fmt.Errorf("ask for the layout of AF_XDP rings: %w", err)
	}
	return errors.Join(
		addRing(q, &q.r.fill, unix.XDP_UMEM_PGOFF_FILL_RING, &off.Fr, rxChunks),
		addRing(q, &q.r.ring, unix.XDP_PGOFF_RX_RING, &off.Rx, rxChunks),
		addRing(q, &q.t.completion, unix.XDP_UMEM_PGOFF_COMPLETION_RING, &off.Cr, txChunks),
		addRing(q, &q.t.ring, unix.XDP_PGOFF_TX_RING, &off.Tx, txChunks),
	)
}

func addRing[T any](q *Queue, to *ring[T], pgoff int64, off *unix.XDPRingOffset, n uint32) error {
	r, m, err := mapRing[T](q.fd, pgoff, off, n)
	if err == nil {
		*to = r
		q.maps = append(q.maps, m)
	}
	return err
}

// initSides gives the first chunks to the receive side, which is about to put
// them into the fill ring, and the others to the transmit side.
func (q *Queue) initSides(umem []byte, shift uint) {
	q.r.umem, q.t.umem = umem, umem
	q.r.chunks = chunks{shift: shift, kernel: make([]bool, rxChunks)}
	q.t.chunks = chunks{shift: shift, first: rxChunks, kernel: make([]bool, txChunks)}
	q.r.pending = make([]uint32, rxChunks)
	for i := range q.r.pending {
		q.r.pending[i] = uint32(i)
	}
	q.t.free = make([]uint32, txChunks)
	for i := range q.t.free {
		q.t.free[i] = uint32(i)
	}
	q.r.partial = q.dev.link.Virtual()
	q.t.maxFrame = q.dev.mtu + nic.EthHdrLen + nic.VLANTagLen
	if q.dev.program.frags {
		q.r.arena = make([]byte, arenaFrames*arenaSlot)
	} else {
		q.t.maxFrame = min(q.t.maxFrame, q.t.chunkRoom())
	}
}

// bind joins the socket to the NIC's queue: zero-copy if the driver can.
func (q *Queue) bind(ctx context.Context) error {
	l := q.dev.link
	flags := uint16(unix.XDP_USE_NEED_WAKEUP)
	if q.dev.program.frags {
		flags |= unix.XDP_USE_SG
	}
	address := &unix.SockaddrXDP{Flags: flags, Ifindex: uint32(l.Attrs().Index), QueueID: uint32(q.id)}
	err := nic.Retry(ctx, func() error {
		err := unix.Bind(q.fd, address)
		if errors.Is(err, unix.EBUSY) {
			return l.InUse(0)
		}
		return nic.Denied(err, fmt.Sprintf("bind AF_XDP to %s queue %d", l.Name(), q.id), "CAP_NET_RAW")
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", nic.ErrUnsupported, err)
	}
	if err != nil {
		return err
	}
	options, err := unix.GetsockoptInt(q.fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	if err != nil {
		return fmt.Errorf("ask whether %s is zero-copy: %w", l.Name(), err)
	}
	q.zeroCopy = options&unix.XDP_OPTIONS_ZEROCOPY != 0
	if q.zeroCopy {
		// Whether the hardware fills checksums in is not known.
		q.t.offloads.TXChecksum = false
	}
	return nil
}

// setUpTransmit lets one system call send everything that is queued, and
// makes what TransmitWait waits on.
func (q *Queue) setUpTransmit() error {
	// Linux 6.17 has the option; before it a call sends at most 32 frames.
	_ = unix.SetsockoptInt(q.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, txChunks)
	// In copy mode all frames on their way count against the send buffer.
	const sendBuffer = txChunks * 16 << 10
	if unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	var err error
	if q.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	bell := q.life.TXBell().FD()
	return errors.Join(
		unix.EpollCtl(q.epoll, unix.EPOLL_CTL_ADD, q.fd, &unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLET, Fd: int32(q.fd)}),
		unix.EpollCtl(q.epoll, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(bell)}),
	)
}
