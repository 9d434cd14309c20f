package afxdp

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// fakeRing returns a ring in ordinary memory that both sides can use.
func fakeRing[T any](n, start uint32) ring[T] {
	indices := [3]uint32{start, start, 0}
	r := newRing(shared{&indices[0], &indices[1], &indices[2]}, make([]T, n))
	r.own, r.peer = start, start
	return r
}

// TestRingIsAQueue compares both sides of a ring with a slice, around the wrap
// of the indices.
func TestRingIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := uint32(1) << rapid.IntRange(0, 6).Draw(t, "log size")
		start := ^uint32(0) - rapid.Uint32Range(0, 200).Draw(t, "before wrap")
		producer := fakeRing[uint64](size, start)
		consumer := producer
		var model []uint64
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"produce": func(t *rapid.T) {
				want := rapid.Uint32Range(0, size+2).Draw(t, "n")
				n := min(want, producer.vacant(want))
				require.LessOrEqual(t, int(n), int(size)-len(model))
				require.False(t, n < want && int(n) < int(size)-len(model), "refused although there is room")
				for range n {
					*producer.at(producer.own) = next
					producer.own++
					model = append(model, next)
					next++
				}
				producer.produced()
			},
			"consume": func(t *rapid.T) {
				want := rapid.Uint32Range(0, size+2).Draw(t, "n")
				n := min(want, consumer.waiting(want))
				require.False(t, n < want && int(n) < len(model), "nothing although entries wait")
				for range n {
					require.Equal(t, model[0], *consumer.at(consumer.own))
					model = model[1:]
					consumer.own++
				}
				consumer.consumed()
			},
			"": func(t *rapid.T) {
				require.Zero(t, producer.corrupt+consumer.corrupt)
			},
		})
	})
}

// TestHostileIndices: whatever the other side writes, no side is told of more
// entries than the ring has, or made to take back what it knew.
func TestHostileIndices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := uint32(1) << rapid.IntRange(0, 12).Draw(t, "log size")
		c := cursor{size: size}
		c.own = rapid.Uint32().Draw(t, "own")
		c.peer = c.own + rapid.Uint32Range(0, size).Draw(t, "known")
		p := cursor{size: size, own: c.own, peer: c.own - (c.peer - c.own)}
		for range 20 {
			hostile := rapid.Uint32().Draw(t, "index")
			known := c.peer - c.own
			n, ok := c.ready(hostile)
			require.LessOrEqual(t, n, size)
			require.GreaterOrEqual(t, n, known, "entries known of do not vanish")
			require.Equal(t, ok, hostile-c.own <= size && hostile-c.own >= known)
			free := size - (p.own - p.peer)
			n, ok = p.room(hostile)
			require.LessOrEqual(t, n, size)
			require.GreaterOrEqual(t, n, free, "room known of does not vanish")
			require.Equal(t, ok, p.own-hostile <= size-free)
		}
	})
}
