package ipc

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestRingIsAQueue drives both sides in any order, around the wrap of the
// indices, and compares them with a slice: same frames, same order, none lost,
// and full exactly when the model says so.
func TestRingIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buffers := 1 << rapid.IntRange(0, 7).Draw(t, "log buffers")
		size := 1 << rapid.IntRange(6, 9).Draw(t, "log size")
		l := ordinaryLane(buffers, size, -rapid.Uint32Range(0, uint32(3*buffers)).Draw(t, "before wrap"))
		p, c := attachProducer(l), attachConsumer(l)
		m := &queueModel{buffers: buffers, size: size}
		most := min(buffers*size-VnetHdrLen, MaxFrame)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				n := rapid.IntRange(MinFrame, most).Draw(t, "length")
				hdr, frame := frameOf(make([]byte, n), m.next, n)
				cut := rapid.IntRange(0, n).Draw(t, "cut")
				ok, bad := p.put(hdr, [][]byte{frame[:cut], frame[cut:]}, uint32(VnetHdrLen+n))
				require.Nil(t, bad)
				require.Equal(t, m.put(n), ok)
			},
			"publish": func(*rapid.T) { p.publish(); m.publish() },
			"take": func(t *rapid.T) {
				require.Nil(t, c.look())
				require.Equal(t, m.waiting(), c.known() > 0)
				if !m.waiting() {
					return
				}
				f, bad := c.peek()
				require.Nil(t, bad)
				got := make([]byte, f.n)
				c.copyOut(got, f.off)
				c.advance(f)
				seq, n := m.take()
				require.NoError(t, verify(got, seq, n, make([]byte, n)))
			},
			"release":          func(*rapid.T) { c.release(); m.release() },
			"another producer": func(*rapid.T) { p = attachProducer(l); m.producerDied() },
			"another consumer": func(*rapid.T) { c = attachConsumer(l); m.consumerDied() },
			"": func(t *rapid.T) {
				require.Equal(t, !m.waiting(), c.idle())
				require.LessOrEqual(t, p.own-c.shown, uint32(buffers))
			},
		})
	})
}

// queueModel is what a ring should do. frames are the lengths of those that are
// not released: taken, then published, then only put.
type queueModel struct {
	buffers, size    int
	next             uint64 // number of the next frame put
	frames           []modelFrame
	taken, published int
}

type modelFrame struct {
	seq uint64
	n   int
}

func (m *queueModel) chain(n int) int { return (VnetHdrLen + n + m.size - 1) / m.size }

func (m *queueModel) put(n int) bool {
	used := m.chain(n)
	for _, f := range m.frames {
		used += m.chain(f.n)
	}
	if used > m.buffers {
		return false
	}
	m.frames = append(m.frames, modelFrame{m.next, n})
	m.next++
	return true
}

func (m *queueModel) publish()      { m.published = len(m.frames) }
func (m *queueModel) waiting() bool { return m.taken < m.published }

func (m *queueModel) take() (uint64, int) {
	f := m.frames[m.taken]
	m.taken++
	return f.seq, f.n
}

func (m *queueModel) release() {
	m.frames = m.frames[m.taken:]
	m.published -= m.taken
	m.taken = 0
}

func (m *queueModel) producerDied() { m.frames = m.frames[:m.published] }
func (m *queueModel) consumerDied() { m.taken = 0 }

// TestHostileIndices: whatever the other side writes, no side believes in more
// buffers than there are, nor takes back what it knew, and exactly the honest
// values pass.
func TestHostileIndices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := uint32(1) << rapid.IntRange(0, 12).Draw(t, "log size")
		l := ordinaryLane(int(size), 64, rapid.Uint32().Draw(t, "start"))
		p, c := attachProducer(l), attachConsumer(l)
		p.seen += size
		p.own += rapid.Uint32Range(0, size).Draw(t, "put")
		p.shown += rapid.Uint32Range(0, p.own-p.shown).Draw(t, "published")
		c.seen += rapid.Uint32Range(0, size).Draw(t, "known")
		c.own += rapid.Uint32Range(0, c.seen-c.own).Draw(t, "taken")
		index := rapid.OneOf(rapid.Uint32(), rapid.Map(rapid.Uint32Range(0, 2*size), func(d uint32) uint32 { return c.shown - size/2 + d }))
		for range 20 {
			v := index.Draw(t, "index")
			l.producer.Store(v)
			honest := v-c.shown <= size && v-c.shown >= c.seen-c.shown
			bad := c.look()
			require.Equal(t, honest, bad == nil)
			require.LessOrEqual(t, c.seen-c.shown, size)
			require.GreaterOrEqual(t, c.seen-c.shown, c.own-c.shown)

			l.consumer.Store(v)
			honest = v-p.seen <= p.shown-p.seen
			bad = p.look()
			require.Equal(t, honest, bad == nil)
			require.LessOrEqual(t, p.room(), size)
		}
	})
}

// TestHostileDescriptors: a length that is no frame's, or reaches past what is
// published, is a breach; any other stays inside the buffers.
func TestHostileDescriptors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := ordinaryLane(1024, 128, rapid.Uint32().Draw(t, "start"))
		c := attachConsumer(l)
		published := rapid.Uint32Range(1, 1024).Draw(t, "published")
		l.producer.Store(c.own + published)
		require.Nil(t, c.look())
		n := rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, VnetHdrLen+MaxFrame+2)).Draw(t, "length")
		l.desc[c.own&c.mask()] = n
		f, bad := c.peek()
		switch {
		case n < VnetHdrLen+MinFrame || n > VnetHdrLen+MaxFrame:
			require.Equal(t, BadLength, bad.Breach)
		case (n+127)/128 > published:
			require.Equal(t, BadChain, bad.Breach)
		default:
			require.Nil(t, bad)
			c.copyOut(make([]byte, f.n), f.off)
			c.advance(f)
			require.LessOrEqual(t, c.own-c.shown, published)
		}
	})
}

// TestChainLen: no buffer more than needed, at the bounds of each.
func TestChainLen(t *testing.T) {
	for shift := uint8(6); shift <= 12; shift++ {
		for k := uint32(1); k<<shift <= VnetHdrLen+MaxFrame; k++ {
			require.Equal(t, k, chainLen(k<<shift-1, shift))
			require.Equal(t, k, chainLen(k<<shift, shift))
			require.Equal(t, k+1, chainLen(k<<shift+1, shift))
		}
	}
}
