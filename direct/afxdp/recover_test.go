package afxdp

import (
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// successor is a receiver that takes up the rings of r, whose user has ended.
func successor(r *receiver) *receiver {
	return &receiver{
		ring: newRing(r.ring.shared, r.ring.entries), fill: newRing(r.fill.shared, r.fill.entries),
		chunks: chunks{shift: r.chunks.shift, kernel: make([]bool, len(r.chunks.kernel))}, umem: r.umem,
	}
}

// TestRecoverReceiver: users come and go at any moment while the kernel is in
// the middle of anything; no frame that the kernel has published and no user has
// released is lost, no chunk is ever the kernel's twice, and none is lost.
func TestRecoverReceiver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := fakeReceiver(false)
		fill := r.fill // the kernel's view: fill.own is what it has taken
		fill.own, fill.peer = atomic.LoadUint32(r.fill.consumer), atomic.LoadUint32(r.fill.consumer)
		producer := *r.ring.producer
		var taken []uint64            // chunks taken, not published
		var expected, received []byte // of those published, what is to come, and what is not released
		next := byte(0)
		take := func() bool {
			if fill.waiting(1) == 0 {
				return false
			}
			addr := *fill.at(fill.own)
			fill.own++
			require.False(t, slices.Contains(taken, addr), "a chunk given twice")
			taken = append(taken, addr)
			return true
		}
		publish := func() {
			for _, addr := range taken {
				addr += unix.XDP_PACKET_HEADROOM
				for i := range 60 {
					r.umem[addr+uint64(i)] = next
				}
				*r.ring.at(producer) = unix.XDPDesc{Addr: addr, Len: 60}
				producer++
				expected = append(expected, next)
				next++
			}
			taken = taken[:0]
			atomic.StoreUint32(r.ring.producer, producer) // this first, as the kernel does
			fill.consumed()
		}
		batch := make([][]byte, testChunks)
		receive := func(most int) {
			got := r.receive(batch[:most])
			for _, f := range batch[:got] {
				require.Equal(t, expected[0], f[len(f)-1])
				expected, received = expected[1:], append(received, expected[0])
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"take":    func(*rapid.T) { take() },
			"refresh": func(*rapid.T) { fill.consumed() }, // it does so when it runs short
			"publish": func(*rapid.T) { publish() },
			"receive": func(t *rapid.T) { receive(rapid.IntRange(1, 20).Draw(t, "most")) },
			"release": func(*rapid.T) { r.release(); received = nil },
			"end": func(t *rapid.T) {
				r = successor(r)
				require.NoError(t, r.recover())
				expected, received = append(received, expected...), nil
				if rapid.Bool().Draw(t, "release") {
					r.release()
				}
			},
			"": func(*rapid.T) { require.Zero(t, r.badIndex.Load()+r.invalid.Load()) },
		})
		// A last packet, or, without a chunk for it, the wait that stands for it.
		if !take() && r.limbo != nil {
			publish()
			r.ring.peer = producer
			r.endLimbo()
		}
		publish()
		for len(expected) > 0 {
			receive(testChunks)
		}
		receive(1)
		r.release()
		require.Nil(t, r.limbo)
		require.Equal(t, uint32(testChunks), fill.waiting(testChunks), "all chunks are the kernel's again")
	})
}

// TestRecoverTransmitter is TestRecoverReceiver for the other direction: what was
// published is sent once, and all chunks come back.
func TestRecoverTransmitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := fakeTransmitter(2000)
		sent, done := x.ring, x.completion // the kernel's views
		var flying []uint64
		invalid := *x.ring.consumer - *x.completion.producer // as if so many had been, for the indices begin so
		complete := func(i int) {
			*done.at(done.own) = flying[i]
			flying = slices.Delete(flying, i, i+1)
			done.own++
			done.produced()
		}
		t.Repeat(map[string]func(*rapid.T){
			"transmit": func(t *rapid.T) {
				if x.transmit(nil, [][]byte{make([]byte, 60)}) != nil {
					require.Empty(t, x.free)
				}
			},
			"flush": func(*rapid.T) { x.publish() },
			"send": func(t *rapid.T) {
				for n := min(sent.waiting(testChunks), rapid.Uint32Range(0, 9).Draw(t, "n")); n > 0; n-- {
					addr := sent.at(sent.own).Addr
					sent.own++
					require.False(t, slices.Contains(flying, addr), "a chunk sent while it was")
					flying = append(flying, addr)
				}
				sent.consumed()
			},
			"complete": func(t *rapid.T) {
				if len(flying) > 0 {
					complete(rapid.IntRange(0, len(flying)-1).Draw(t, "which"))
				}
			},
			"reclaim": func(*rapid.T) { x.reclaim() },
			"end": func(*rapid.T) {
				old := x
				x = &transmitter{
					ring: newRing(old.ring.shared, old.ring.entries), completion: newRing(old.completion.shared, old.completion.entries),
					chunks: chunks{shift: old.chunks.shift, first: old.chunks.first, kernel: make([]bool, testChunks)},
					umem:   old.umem, maxFrame: old.maxFrame, free: make([]uint32, 0, testChunks),
				}
				require.NoError(t, x.recover(invalid))
			},
			"": func(*rapid.T) { require.Zero(t, x.badIndex.Load()) },
		})
		x.publish()
		for sent.waiting(1) > 0 {
			flying = append(flying, sent.at(sent.own).Addr)
			sent.own++
		}
		sent.consumed()
		for len(flying) > 0 {
			complete(0)
		}
		require.Equal(t, testChunks, x.reclaim())
		require.Nil(t, x.limbo)
	})
}

// TestRecoverDisorder: indices that no user of this package leaves are refused.
func TestRecoverDisorder(t *testing.T) {
	for name, damage := range map[string]func(*receiver){
		"fill":    func(r *receiver) { *r.fill.producer += testChunks + 1 },
		"receive": func(r *receiver) { *r.ring.consumer++ },
	} {
		t.Run(name, func(t *testing.T) {
			r := fakeReceiver(false)
			damage(r)
			require.ErrorIs(t, successor(r).recover(), ErrGeometry)
		})
	}
	x := fakeTransmitter(2000)
	*x.completion.consumer++
	require.ErrorIs(t, x.recover(0), ErrGeometry)
}
