package afxdp

import (
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

// frameRules are what all queues of a device have in common.
type frameRules struct {
	// maxFrame is the longest frame to send, in bytes.
	maxFrame int
	// partial: frames may have partial checksums of this machine's kernel.
	partial bool
	// frags: frames may lie in several chunks.
	frags bool
	// stamps: the XDP program may put a stamp before a frame, not with frags.
	stamps bool
	// noChecksum: what frames pass behind the socket does not fill checksums in.
	noChecksum bool
	// all: all leaves by the outlet.
	all bool
}

// useQueue makes this process the user of a socket, whose files it takes over,
// as its maker or after another user's end. files have been checked.
func useQueue(d *Device, g Geometry, f queueFiles, rules frameRules) (q *Queue, err error) {
	defer func() { _ = unix.Close(f.umem) }() // the mapping keeps the memory
	q = &Queue{dev: d, id: g.Queue, fd: f.socket, epoll: -1, zeroCopy: g.ZeroCopy, outletFD: f.outlet, all: rules.all}
	if f.outlet >= 0 {
		q.outlet = nic.NewFileWriter(&d.files, &q.life, f.outlet)
	}
	if err = q.life.Init(); err != nil {
		q.closeFiles()
		return nil, fmt.Errorf("make a doorbell: %w", err)
	}
	defer func() {
		q.freeLater()
		if err != nil {
			q.close()
			q = nil
		}
	}()
	if err = q.life.AddRX(q.fd); err != nil {
		return
	}
	if d.watch != nil && len(d.own) == 0 {
		q.checks = true
		if err = q.life.AddRX(d.watch.FD()); err != nil {
			return
		}
	}
	if err = q.mapMemory(f.umem, &g, rules); err != nil {
		return
	}
	if err = q.recover(); err != nil {
		return
	}
	err = q.setUpWait()
	return
}

// mapMemory maps umem and rings and sets up both sides, which have no chunks
// yet.
func (q *Queue) mapMemory(umem int, g *Geometry, rules frameRules) error {
	mem, err := mapUmem(umem, g.size())
	if err != nil {
		return fmt.Errorf("map a umem: %w", err)
	}
	q.maps = append(q.maps, mem)
	if err := q.mapRings(g); err != nil {
		return err
	}
	shift := uint(bits.TrailingZeros32(g.Chunk))
	q.r.umem, q.t.umem = mem.bytes(), mem.bytes()
	q.r.chunks = chunks{shift: shift, kernel: make([]bool, g.RXChunks)}
	q.t.chunks = chunks{shift: shift, first: uint64(g.RXChunks), kernel: make([]bool, g.TXChunks)}
	q.r.pending = make([]uint32, 0, g.RXChunks)
	q.t.free = make([]uint32, 0, g.TXChunks)
	q.r.partial, q.r.stamps = rules.partial, rules.stamps && !rules.frags
	q.t.offloads.TXChecksum = g.TXChecksum && !rules.noChecksum
	q.t.maxFrame = rules.maxFrame
	if rules.frags {
		q.r.arena = make([]byte, arenaFrames*arenaSlot)
	} else {
		q.t.maxFrame = min(q.t.maxFrame, q.t.chunkRoom())
	}
	return nil
}

func (q *Queue) mapRings(g *Geometry) error {
	off, err := ringOffsets(q.fd)
	if err != nil {
		return fmt.Errorf("ask for the layout of AF_XDP rings: %w", err)
	}
	return errors.Join(
		addRing(q, &q.r.fill, unix.XDP_UMEM_PGOFF_FILL_RING, &off.Fr, g.RXChunks),
		addRing(q, &q.r.ring, unix.XDP_PGOFF_RX_RING, &off.Rx, g.RXChunks),
		addRing(q, &q.t.completion, unix.XDP_UMEM_PGOFF_COMPLETION_RING, &off.Cr, g.TXChunks),
		addRing(q, &q.t.ring, unix.XDP_PGOFF_TX_RING, &off.Tx, g.TXChunks),
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

// setUpWait makes what TransmitWait waits on.
func (q *Queue) setUpWait() error {
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

// maxFrameFor returns the longest frame for an MTU.
func maxFrameFor(mtu int) int { return mtu + nic.EthHdrLen + nic.VLANTagLen }
