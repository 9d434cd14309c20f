package afxdp

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// txMetadata is the room in bytes in front of each frame sent for struct
// xsk_tx_metadata (Documentation/networking/xsk-tx-metadata.rst).
const txMetadata = 16

// transmitter is the transmit side of a queue. One goroutine at a time uses
// it; the counters may be read by all.
type transmitter struct {
	ring       ring[unix.XDPDesc]
	completion ring[uint64]
	chunks     chunks
	umem       []byte
	free       []uint32 // chunks that are ours
	offloads   nic.Offloads
	maxFrame   int
	// limbo has the chunks of which it is not yet known whether the kernel has
	// them, and limboLeft how many of those it does have. See recover.
	limbo     []bool
	limboLeft uint32

	queued, queuedBytes uint64 // since the last flush

	packets, bytes, badIndex     atomic.Uint64
	full, tooLong, badFrame, bad atomic.Uint64
}

// transmit is Queue.Transmit.
func (t *transmitter) transmit(hdr *[nic.VnetHdrLen]byte, parts [][]byte) error {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	var h nic.VnetHdr
	if hdr != nil {
		h.Parse(hdr)
	}
	if err := t.check(&h, total); err != nil {
		return err
	}
	room := t.chunkRoom()
	need := (total + room - 1) / room
	if len(t.free) < need && t.reclaim() < need {
		t.full.Add(1)
		return nic.ErrFull
	}
	t.write(&h, parts, total, room)
	t.queued++
	t.queuedBytes += uint64(total)
	return nil
}

func (t *transmitter) check(h *nic.VnetHdr, total int) error {
	switch {
	case total < nic.EthHdrLen:
		t.badFrame.Add(1)
		return nic.ErrBadFrame
	case total > t.maxFrame:
		t.tooLong.Add(1)
		return nic.ErrTooLong
	}
	err := h.Check(total, t.offloads)
	if err != nil {
		t.bad.Add(1)
	}
	return err
}

// chunkRoom returns how many bytes of a frame one chunk takes.
func (t *transmitter) chunkRoom() int { return 1<<t.chunks.shift - txMetadata }

// write copies a frame of total bytes into free chunks, of which there are
// enough, and describes them in the ring, which has an entry for every chunk.
func (t *transmitter) write(h *nic.VnetHdr, parts [][]byte, total, room int) {
	options := t.metadata(h)
	part := 0
	var rest []byte
	for total > 0 {
		last := len(t.free) - 1
		i := t.free[last]
		t.free = t.free[:last]
		addr := t.chunks.addr(i) + txMetadata
		n := min(total, room)
		to := t.umem[addr : addr+uint64(n)]
		for filled := 0; filled < n; {
			for len(rest) == 0 {
				rest = parts[part]
				part++
			}
			m := copy(to[filled:], rest)
			rest = rest[m:]
			filled += m
		}
		total -= n
		d := unix.XDPDesc{Addr: addr, Len: uint32(n)}
		if options != 0 {
			t.putMetadata(h, addr)
			d.Options, options = options, 0
		}
		if total > 0 {
			d.Options |= unix.XDP_PKT_CONTD
		}
		t.chunks.give(i)
		*t.ring.at(t.ring.own) = d
		t.ring.own++
	}
}

func (t *transmitter) metadata(h *nic.VnetHdr) uint32 {
	if h.Flags&nic.VnetNeedsCsum != 0 {
		return unix.XDP_TX_METADATA
	}
	return 0
}

// putMetadata asks for the checksum of the frame at addr.
func (t *transmitter) putMetadata(h *nic.VnetHdr, addr uint64) {
	m := t.umem[addr-txMetadata : addr]
	binary.NativeEndian.PutUint64(m, unix.XDP_TXMD_FLAGS_CHECKSUM)
	binary.NativeEndian.PutUint16(m[8:], h.CsumStart)
	binary.NativeEndian.PutUint16(m[10:], h.CsumOffset)
	binary.NativeEndian.PutUint32(m[12:], 0)
}

// reclaim takes back the chunks that the kernel has finished with and returns
// how many are free now.
func (t *transmitter) reclaim() int {
	n := t.completion.waiting(uint32(len(t.chunks.kernel)))
	for ; n > 0; n-- {
		addr := *t.completion.at(t.completion.own) // the one reading
		t.completion.own++
		if i, ok := t.chunks.take(addr); ok {
			t.free = append(t.free, i) // capacity for all chunks
			if t.limbo != nil && t.limbo[i] {
				t.limbo[i] = false
				t.limboLeft--
			}
		} else {
			t.completion.corrupt++
		}
	}
	t.completion.consumed()
	if t.limbo != nil && t.limboLeft == 0 {
		t.endLimbo()
	}
	if t.completion.corrupt != 0 {
		t.badIndex.Add(t.completion.corrupt)
		t.completion.corrupt = 0
	}
	return len(t.free)
}

// publish shows the kernel what is queued.
func (t *transmitter) publish() {
	t.ring.produced()
	t.packets.Add(t.queued)
	t.bytes.Add(t.queuedBytes)
	t.queued, t.queuedBytes = 0, 0
}

// unsent returns how many descriptors the kernel has not taken yet.
func (t *transmitter) unsent() uint32 { return t.ring.size - t.ring.vacant(t.ring.size) }
