package afxdp

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// receiver is the receive side of a queue. One goroutine at a time uses it;
// the counters may be read by all.
type receiver struct {
	ring    ring[unix.XDPDesc]
	fill    ring[uint64]
	chunks  chunks
	umem    []byte
	pending []uint32 // chunks received and not yet released
	partial bool     // look for partial checksums
	stamps  bool     // look for a Stamp before each frame
	// limbo has the chunks of which it is not yet known whether the kernel has
	// them; nil when there are none. See recover.
	limbo     []bool
	limboFrom uint32 // the receive ring's producer index then

	// arena holds frames of several descriptors, put together; nil if the
	// sockets have none. The frame that is being put together is
	// arena[start:end]; open is false between frames, bad if it is to be
	// dropped.
	arena      []byte
	start, end int
	open, bad  bool

	packets, bytes, invalid, badIndex atomic.Uint64
}

const (
	arenaFrames = 8
	// arenaSlot is the room that one more frame may need.
	arenaSlot = nic.VnetHdrLen + nic.MaxFrame
)

// receive is Queue.Receive.
func (r *receiver) receive(batch [][]byte) (n int) {
	waiting := r.ring.waiting(uint32(len(batch)))
	if r.limbo != nil && r.ring.peer != r.limboFrom {
		r.endLimbo()
	}
	if waiting == 0 {
		if r.ring.corrupt != 0 {
			r.noteCorrupt()
		}
		return 0
	}
	var bytes, invalid uint64
	for ; waiting > 0 && n < len(batch) && r.arenaHasRoom(); waiting-- {
		d := *r.ring.at(r.ring.own) // the one reading
		r.ring.own++
		frame, done := r.accept(d)
		switch {
		case frame != nil:
			batch[n] = frame
			n++
			bytes += uint64(len(frame) - nic.VnetHdrLen)
		case done:
			invalid++
		}
	}
	r.packets.Add(uint64(n))
	r.bytes.Add(bytes)
	if invalid != 0 {
		r.invalid.Add(invalid)
	}
	return n
}

func (r *receiver) noteCorrupt() {
	r.badIndex.Add(r.ring.corrupt + r.fill.corrupt)
	r.ring.corrupt, r.fill.corrupt = 0, 0
}

// accept takes one descriptor. It returns a frame if that is now complete and
// good; done without a frame means that one has been dropped.
func (r *receiver) accept(d unix.XDPDesc) (frame []byte, done bool) {
	more := d.Options&unix.XDP_PKT_CONTD != 0
	i, mine := r.chunks.take(d.Addr)
	if mine {
		r.pending = append(r.pending, i) // capacity for all chunks
	}
	good := mine && r.chunks.fits(d.Addr, d.Len)
	if !more && !r.open {
		if !good || d.Len < nic.EthHdrLen {
			return nil, true
		}
		return r.finish(r.umem[d.Addr-nic.VnetHdrLen : d.Addr+uint64(d.Len) : d.Addr+uint64(d.Len)]), true
	}
	return r.assemble(d, good, more)
}

// assemble adds a descriptor to a frame of several.
func (r *receiver) assemble(d unix.XDPDesc, good, more bool) (frame []byte, done bool) {
	if !r.open {
		r.open, r.bad = true, r.arena == nil
		r.start = r.end
		if !r.bad {
			r.end += nic.VnetHdrLen
		}
	}
	switch {
	case !good || r.end+int(d.Len) > r.start+arenaSlot:
		r.bad = true
	case !r.bad:
		r.end += copy(r.arena[r.end:], r.umem[d.Addr:d.Addr+uint64(d.Len)])
	}
	if more {
		return nil, false
	}
	r.open = false
	if r.bad || r.end-r.start < nic.VnetHdrLen+nic.EthHdrLen {
		r.end = r.start
		return nil, true
	}
	return r.finish(r.arena[r.start:r.end:r.end]), true
}

// arenaHasRoom says whether the arena has room for what the next descriptor
// may begin or add.
func (r *receiver) arenaHasRoom() bool {
	return r.arena == nil || r.open || r.end+arenaSlot <= len(r.arena)
}

// stampMagic begins the metadata that the steering program puts before a frame
// of an instance that is being switched: it, and the stamp, 4 bytes each in the
// host's byte order. Other programs put none there, and what lies there is then
// left from the chunk's last use.
const stampMagic = 0x704d5453

// readStamp reads the metadata, which the virtio_net_hdr is about to overwrite.
func readStamp(frame []byte) (uint32, bool) {
	meta := frame[nic.VnetHdrLen-8 : nic.VnetHdrLen]
	if binary.NativeEndian.Uint32(meta) != stampMagic {
		return 0, false
	}
	return binary.NativeEndian.Uint32(meta[4:]), true
}

// finish writes the virtio_net_hdr in front of a frame.
func (r *receiver) finish(frame []byte) []byte {
	var h nic.VnetHdr
	if r.partial {
		if start, offset, ok := partialChecksum(frame[nic.VnetHdrLen:]); ok {
			h.Flags, h.CsumStart, h.CsumOffset = nic.VnetNeedsCsum, start, offset
		}
	}
	if r.stamps {
		if stamp, ok := readStamp(frame); ok {
			h.SetStamp(stamp)
		}
	}
	h.Put(frame)
	return frame
}

// release is Queue.Release. It returns true if the driver wants to be woken.
// Only now the receive ring's entries are given up: until then what was received
// is in the ring for whoever takes the queue up after us. Before the chunks, lest
// one be in both rings.
func (r *receiver) release() (wake bool) {
	r.ring.consumed()
	if len(r.pending) == 0 {
		return false
	}
	// There is room for all: the fill ring has an entry for every chunk.
	n := min(len(r.pending), int(r.fill.vacant(uint32(len(r.pending)))))
	for _, i := range r.pending[:n] {
		r.chunks.give(i)
		*r.fill.at(r.fill.own) = r.chunks.addr(i)
		r.fill.own++
	}
	r.pending = r.pending[:copy(r.pending, r.pending[n:])]
	r.fill.produced()
	if r.open {
		r.end = copy(r.arena, r.arena[r.start:r.end])
	} else {
		r.end = 0
	}
	r.start = 0
	return r.fill.wantsWakeup()
}
