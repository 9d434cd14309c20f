package afxdp

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"junction/direct/internal/nic"
)

const testChunks = 64

// fakeReceiver returns a receiver whose kernel is the test. All chunks are in
// the fill ring.
func fakeReceiver(frags bool) *receiver {
	r := &receiver{
		ring: fakeRing[unix.XDPDesc](testChunks, 1<<32-20), fill: fakeRing[uint64](testChunks, 1<<32-30),
		chunks: chunks{shift: 11, kernel: make([]bool, testChunks)},
		umem:   make([]byte, testChunks<<11), partial: true,
	}
	if frags {
		r.arena = make([]byte, arenaFrames*arenaSlot)
	}
	for i := range uint32(testChunks) {
		r.pending = append(r.pending, i)
	}
	r.release()
	return r
}

// kernel is the other side of a receiver's rings.
type kernel struct {
	r        *receiver
	fill     ring[uint64]
	producer uint32
}

func newKernel(r *receiver) *kernel {
	k := &kernel{r: r, fill: r.fill, producer: *r.ring.producer}
	k.fill.own, k.fill.peer = *r.fill.consumer, *r.fill.consumer
	return k
}

func (k *kernel) push(d unix.XDPDesc) {
	*k.r.ring.at(k.producer) = d
	k.producer++
	atomic.StoreUint32(k.r.ring.producer, k.producer)
}

// deliver does what the kernel does with a frame, in chunks of at most room
// bytes behind a headroom of 256. false: not enough buffers.
func (k *kernel) deliver(frame []byte, room int) bool {
	need := uint32(len(frame)+room-1) / uint32(room)
	if k.fill.waiting(need) < need {
		return false
	}
	for len(frame) > 0 {
		addr := *k.fill.at(k.fill.own) + unix.XDP_PACKET_HEADROOM
		k.fill.own++
		n := copy(k.r.umem[addr:addr+uint64(room)], frame)
		d := unix.XDPDesc{Addr: addr, Len: uint32(n)}
		if frame = frame[n:]; len(frame) > 0 {
			d.Options = unix.XDP_PKT_CONTD
		}
		k.push(d)
	}
	k.fill.consumed()
	return true
}

// TestReceiveInOrder: with an honest kernel every frame arrives once, in order
// and whole, however batches, releases and fragments fall.
func TestReceiveInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frags := rapid.Bool().Draw(t, "frags")
		r := fakeReceiver(frags)
		k := newKernel(r)
		var expected [][]byte
		most := 1500
		if frags {
			most = 20000
		}
		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				n := rapid.IntRange(nic.EthHdrLen, most).Draw(t, "length")
				f := bytes.Repeat([]byte{byte(len(expected))}, n)
				f[12], f[13] = 0x88, 0xb5
				if k.deliver(f, 1536) {
					expected = append(expected, f)
				}
			},
			"receive": func(t *rapid.T) {
				batch := make([][]byte, rapid.IntRange(0, 9).Draw(t, "batch"))
				n := r.receive(batch)
				for _, f := range batch[:n] {
					require.NotEmpty(t, expected)
					require.Equal(t, make([]byte, nic.VnetHdrLen), f[:nic.VnetHdrLen])
					require.Equal(t, expected[0], f[nic.VnetHdrLen:])
					expected = expected[1:]
				}
			},
			"release": func(*rapid.T) { r.release() },
			"":        func(t *rapid.T) { require.Zero(t, r.invalid.Load()) },
		})
		batch := make([][]byte, testChunks)
		for range testChunks { // the arena may need several releases
			n := r.receive(batch)
			expected = expected[n:]
			r.release()
		}
		require.Empty(t, expected)
		require.Equal(t, uint32(testChunks), *r.fill.producer-*r.fill.consumer, "all chunks are with the kernel again")
	})
}

// FuzzReceive lets a hostile kernel write whatever it likes into the ring: no
// descriptor panics, reaches outside the umem, or has a chunk given out twice.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 100, 0, 0, 1, 1, 0, 0, 0, 0, 1}, false)
	f.Add(bytes.Repeat([]byte{0, 1, 0, 0, 200, 0, 1}, 30), true)
	f.Fuzz(func(t *testing.T, script []byte, frags bool) {
		script = script[:min(len(script), 7*512)]
		r := fakeReceiver(frags)
		k := newKernel(r)
		batch := make([][]byte, 7)
		var got [][]byte
		received := 0
		for ; len(script) >= 7; script = script[7:] {
			k.push(descriptor(script[:6]))
			if script[6]&3 != 0 {
				continue
			}
			n := r.receive(batch)
			received += n
			got = append(got, batch[:n]...)
			requireApart(t, r, got)
			if script[6]&4 != 0 {
				r.release()
				got = nil
			}
			if script[6] == 0xf8 {
				atomic.StoreUint32(r.ring.producer, binary.LittleEndian.Uint32(script))
			}
		}
		r.release()
		require.Equal(t, uint64(received), r.packets.Load())
		with := 0
		for _, kernels := range r.chunks.kernel {
			if kernels {
				with++
			}
		}
		require.Equal(t, testChunks, with+len(r.pending), "no chunk is lost")
	})
}

// descriptor makes addresses of all kinds from six bytes: most within the
// umem, some far outside.
func descriptor(b []byte) unix.XDPDesc {
	d := unix.XDPDesc{
		Addr: uint64(b[0]&127)<<11 | uint64(b[1])<<3,
		Len:  uint32(binary.LittleEndian.Uint16(b[2:])) & 0xfff, Options: uint32(b[4] & 1),
	}
	switch b[5] {
	case 1:
		d.Addr = ^d.Addr
	case 2:
		d.Len = ^d.Len
	case 3:
		d.Addr <<= 40
	}
	return d
}

// requireApart: the frames lie in the receiver's memory and share no byte.
func requireApart(t *testing.T, r *receiver, frames [][]byte) {
	t.Helper()
	offset := func(f, in []byte) int {
		if len(in) == 0 {
			return -1
		}
		d := int(uintptr(unsafe.Pointer(&f[0])) - uintptr(unsafe.Pointer(&in[0])))
		if d < 0 || d+len(f) > len(in) {
			return -1
		}
		return d
	}
	taken := map[int]bool{}
	end := 0
	for _, f := range frames {
		require.GreaterOrEqual(t, len(f), nic.VnetHdrLen+nic.EthHdrLen)
		if at := offset(f, r.umem); at >= 0 {
			require.Equal(t, at>>11, (at+len(f)-1)>>11, "within one chunk")
			require.False(t, taken[at>>11], "chunk %d twice", at>>11)
			taken[at>>11] = true
			continue
		}
		at := offset(f, r.arena)
		require.GreaterOrEqual(t, at, end, "in the arena, behind the one before")
		end = at + len(f)
	}
}

// FuzzPartialChecksum: any frame, and the answer lies within it.
func FuzzPartialChecksum(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, 12), 0x08, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2, 0, 8, 16, 49))
	f.Add(append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 0, 64))
	f.Fuzz(func(t *testing.T, frame []byte) {
		start, offset, ok := partialChecksum(frame)
		if !ok {
			return
		}
		h := nic.VnetHdr{Flags: nic.VnetNeedsCsum, CsumStart: start, CsumOffset: offset}
		require.NoError(t, h.Check(len(frame), nic.Offloads{TXChecksum: true}))
	})
}

func TestPartialChecksum(t *testing.T) {
	udp := append(make([]byte, 12), 0x08, 0, 0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2, 0, 8, 16, 45)
	start, offset, ok := partialChecksum(udp)
	require.True(t, ok)
	require.Equal(t, []uint16{34, 6}, []uint16{start, offset})
	fragment := bytes.Clone(udp)
	fragment[20] = 0x20 // more fragments
	_, _, ok = partialChecksum(fragment)
	require.False(t, ok)
	udp[41]++
	_, _, ok = partialChecksum(udp)
	require.False(t, ok)
}
