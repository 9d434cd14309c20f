package afxdp

import (
	"errors"
	"fmt"
	"math/bits"
	"os"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Geometry is what a process must know of a queue that another one made, beside
// the queue's two files.
type Geometry struct {
	// Queue is the number of the NIC's queue.
	Queue int `json:"queue"`
	// Chunk is the size in bytes of a chunk of the umem, of which there are
	// RXChunks for receiving, then TXChunks for sending. The rings have an entry
	// for each.
	Chunk    uint32 `json:"chunk_bytes"`
	RXChunks uint32 `json:"rx_chunks"`
	TXChunks uint32 `json:"tx_chunks"`
	// ZeroCopy: the driver reads and writes the umem itself.
	ZeroCopy bool `json:"zero_copy"`
	// TXChecksum: the kernel fills in checksums that are asked for in front of a
	// frame.
	TXChecksum bool `json:"tx_checksum"`
}

// ErrGeometry is returned, wrapped, for a queue from elsewhere that cannot be one.
var ErrGeometry = errors.New("no usable AF_XDP queue")

// maxChunks bounds what a geometry makes a process map.
const maxChunks = 1 << 16

// check tells whether g describes a queue of this package.
func (g *Geometry) check() error {
	powerOfTwo := func(n uint32) bool { return n > 0 && n <= maxChunks && bits.OnesCount32(n) == 1 }
	switch {
	case g.Chunk != smallChunk && g.Chunk != largeChunk:
		return fmt.Errorf("%w: chunks of %d bytes", ErrGeometry, g.Chunk)
	case !powerOfTwo(g.RXChunks) || !powerOfTwo(g.TXChunks):
		return fmt.Errorf("%w: %d and %d chunks", ErrGeometry, g.RXChunks, g.TXChunks)
	case g.Queue < 0:
		return fmt.Errorf("%w: queue %d", ErrGeometry, g.Queue)
	}
	return nil
}

// size is that of the umem in bytes.
func (g *Geometry) size() uintptr { return uintptr(g.Chunk) * uintptr(g.RXChunks+g.TXChunks) }

// FilesPerQueue is how many files a queue has: its socket and its umem, in this
// order.
const FilesPerQueue = 2

// seals are those of a umem: of one size for ever, so that no access raises
// SIGBUS.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// newUmem makes the memory of a umem.
func newUmem(size uintptr) (*os.File, error) {
	fd, err := unix.MemfdCreate("junction_umem", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("get memory for a umem: %w", err)
	}
	f := os.NewFile(uintptr(fd), "umem")
	if err = f.Truncate(int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("get memory for a umem: %w", err), f.Close())
	}
	return f, nil
}

// checkFiles tells whether the files can be those of a queue with geometry g.
func checkFiles(socket, umem int, g *Geometry) error {
	if err := g.check(); err != nil {
		return err
	}
	domain, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_XDP {
		return fmt.Errorf("%w: descriptor %d is no AF_XDP socket", ErrGeometry, socket)
	}
	got, err := unix.FcntlInt(uintptr(umem), unix.F_GET_SEALS, 0)
	if err != nil || got&seals != seals {
		return fmt.Errorf("%w: descriptor %d is no sealed memfd", ErrGeometry, umem)
	}
	var st unix.Stat_t
	if err := unix.Fstat(umem, &st); err != nil {
		return fmt.Errorf("%w: %w", ErrGeometry, err)
	}
	if st.Size != int64(g.size()) {
		return fmt.Errorf("%w: a umem of %d bytes, not %d", ErrGeometry, st.Size, g.size())
	}
	return nil
}

// chunkSizeFor returns the smallest chunk size in which a frame of the given
// MTU fits behind the headroom that the kernel leaves in front of it.
func chunkSizeFor(mtu int) uint32 {
	if unix.XDP_PACKET_HEADROOM+mtu+nic.EthHdrLen+nic.VLANTagLen <= smallChunk {
		return smallChunk
	}
	return largeChunk
}
