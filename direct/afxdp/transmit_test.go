package afxdp

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"junction/direct/internal/nic"
)

func fakeTransmitter(maxFrame int) *transmitter {
	t := &transmitter{
		ring: fakeRing[unix.XDPDesc](testChunks, 1<<32-20), completion: fakeRing[uint64](testChunks, 1<<32-30),
		chunks: chunks{shift: 11, first: 3, kernel: make([]bool, testChunks)},
		umem:   make([]byte, (3+testChunks)<<11), maxFrame: maxFrame,
		offloads: nic.Offloads{TXChecksum: true},
	}
	for i := range uint32(testChunks) {
		t.free = append(t.free, i)
	}
	return t
}

// TestTransmitInOrder: an honest kernel reads every frame that was taken, whole
// and in order, in however many parts it came; chunks come back in any order.
func TestTransmitInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := fakeTransmitter(20000)
		sent, done := x.ring, x.completion
		var expected [][]byte
		var out []uint64 // with the kernel
		t.Repeat(map[string]func(*rapid.T){
			"transmit": func(t *rapid.T) {
				parts := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 9000), 0, 4).Draw(t, "parts")
				whole := bytes.Join(parts, nil)
				switch err := x.transmit(nil, parts); {
				case len(whole) < nic.EthHdrLen:
					require.ErrorIs(t, err, nic.ErrBadFrame)
				case len(whole) > 20000:
					require.ErrorIs(t, err, nic.ErrTooLong)
				case err != nil:
					require.ErrorIs(t, err, nic.ErrFull)
					require.Less(t, len(x.free), 20000/2000+1)
				default:
					expected = append(expected, whole)
				}
			},
			"flush": func(*rapid.T) { x.publish() },
			"send": func(t *rapid.T) {
				var f []byte
				for n := sent.waiting(testChunks); n > 0; n-- {
					d := *sent.at(sent.own)
					sent.own++
					f = append(f, x.umem[d.Addr:d.Addr+uint64(d.Len)]...)
					out = append(out, d.Addr)
					if d.Options&unix.XDP_PKT_CONTD == 0 {
						require.True(t, bytes.Equal(expected[0], f))
						expected, f = expected[1:], nil
					}
				}
				require.Empty(t, f, "frames are published whole")
				sent.consumed()
			},
			"complete": func(t *rapid.T) {
				for range rapid.IntRange(0, len(out)).Draw(t, "n") {
					i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
					*done.at(done.own) = out[i]
					done.own++
					out = append(out[:i], out[i+1:]...)
				}
				done.produced()
			},
			"": func(t *rapid.T) { require.Zero(t, x.badIndex.Load()) },
		})
	})
}

// FuzzReclaim lets a hostile kernel complete what it likes: no chunk becomes
// free twice, and only chunks that were sent do.
func FuzzReclaim(f *testing.F) {
	f.Add([]byte{0, 1, 2, 2, 1}, uint64(1)<<13)
	f.Fuzz(func(t *testing.T, script []byte, scale uint64) {
		x := fakeTransmitter(1518)
		done := x.completion
		for _, b := range script {
			if b&1 != 0 {
				_ = x.transmit(nil, [][]byte{make([]byte, 60)})
				x.publish()
				x.ring.peer = x.ring.own // taken
				continue
			}
			*done.at(done.own) = uint64(b>>1)*2048 + scale
			done.own++
			done.produced()
			if b == 0xfe {
				*x.completion.producer = uint32(scale)
				done.own = uint32(scale)
			}
			x.reclaim()
			seen := map[uint32]bool{}
			for _, i := range x.free {
				require.False(t, seen[i], "chunk %d is free twice", i)
				require.False(t, x.chunks.kernel[i])
				seen[i] = true
			}
		}
	})
}
