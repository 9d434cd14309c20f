package modeswitch

import (
	"encoding/binary"
	"testing"
	"time"

	"junction/direct"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// null is a network endpoint that receives and forgets, so that what is
// measured is the link endpoint alone.
type null struct {
	stack.NetworkEndpoint
	stack.NetworkDispatcher
}

func (null) HandlePacket(*stack.PacketBuffer)                                   {}
func (null) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// device takes everything and gives nothing.
type device struct{ sent, flushed int }

func (*device) Receive([][]byte) (int, error) { return 0, nil }
func (*device) Release()                      {}
func (*device) Wait() error                   { return nil }
func (*device) Wake()                         {}
func (*device) TransmitWait() error           { return nil }
func (d *device) Flush() error                { d.flushed++; return nil }
func (d *device) Transmit(_ *[VnetHdrLen]byte, parts [][]byte) error {
	d.sent += len(parts)
	return nil
}

func nullReceiver(t testing.TB) *receiver {
	h := newHost(t, true)
	s, err := newSink(h.stack, nicID, null{}, true)
	require.NoError(t, err)
	s.ipv4 = null{}
	return &receiver{e: h.ep, q: h.ep.first.queues[0], sink: s}
}

func nullMerger(t testing.TB, p *Path) *merger {
	require.NoError(t, p.e.Merge(p, newPath(p.e, p.backend), 1, time.Minute))
	t.Cleanup(func() { p.e.EndMerge() })
	m := p.e.merger.Load()
	m.sink.dispatcher, m.sink.ipv4 = null{}, null{}
	return m
}

func nullTransmitter(t testing.TB) (stack.QueueingDiscipline, *Endpoint) {
	ep, _ := wireEndpoint(t, func(b *Backend) { b.Queues = []Queue{&device{}} })
	return ep.QDisc(), ep
}

// frames returns a batch of n received buffers with the given UDP payload.
func frames(n, payload int) [][]byte {
	batch := make([][]byte, n)
	for i := range batch {
		batch[i] = vnet(vnetNeedsCsum, udpFrame(payload))
	}
	return batch
}

// segments returns a batch of n TCP segments that follow each other.
func segments(n int) [][]byte {
	batch := make([][]byte, n)
	for i := range batch {
		batch[i] = vnet(vnetNeedsCsum, tcpFrame(1, 2, uint32(i*1448), make([]byte, 1448)))
	}
	return batch
}

func TestReceiveAndTransmitDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("not under the race detector: sync.Pool throws away at random there")
		return
	}
	for _, size := range []int{18, 1472, 40000, 65507} {
		r, batch := nullReceiver(t), frames(16, size)
		require.Zero(t, testing.AllocsPerRun(100, func() { r.handle(batch) }), "receive, %d bytes", size)
	}
	r, batch := nullReceiver(t), segments(16)
	require.Zero(t, testing.AllocsPerRun(100, func() { r.handle(batch) }), "receive, joined segments")
	m, held := nullMerger(t, r.q.path), frames(16, 1472)
	stamp := uint32(0)
	merge := func() {
		for i := range held { // the second half waits for the first
			stamp++
			held[i][0] |= direct.VnetStamped
			binary.LittleEndian.PutUint32(held[i][stampAt:], 1<<stampBits|stamp)
		}
		m.handle(m.by[newLane], held[8:])
		m.handle(m.by[oldLane], held[:8])
	}
	for range 2 * window / 16 { // room for what is held is kept
		merge()
	}
	require.Zero(t, testing.AllocsPerRun(100, merge), "receive by two paths")
	require.NotZero(t, m.seq.figures.Held)
	require.Zero(t, m.seq.held)
	q, ep := nullTransmitter(t)
	pkt := outgoing(ep, tcpGSO(1000), make([]byte, 1000), make([]byte, 5000))
	defer pkt.DecRef()
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = q.WritePacket(pkt) }), "transmit")
}

func BenchmarkReceive(b *testing.B) {
	for _, c := range []struct {
		name    string
		payload int
	}{{"64B", 22}, {"1500B", 1472}, {"40KB", 40000}, {"64KB", 65507}} {
		b.Run(c.name, func(b *testing.B) {
			r, batch := nullReceiver(b), frames(16, c.payload)
			b.ReportAllocs()
			b.SetBytes(int64(len(batch[0])))
			for i := 0; i < b.N; i += len(batch) {
				r.handle(batch)
			}
		})
	}
}

func BenchmarkReceiveSegments(b *testing.B) {
	r, batch := nullReceiver(b), segments(16)
	b.ReportAllocs()
	b.SetBytes(1448)
	for i := 0; i < b.N; i += len(batch) {
		r.handle(batch)
	}
}

func BenchmarkTransmit(b *testing.B) {
	q, ep := nullTransmitter(b)
	pkt := outgoing(ep, tcpGSO(1000), make([]byte, 1000))
	defer pkt.DecRef()
	b.ReportAllocs()
	for range b.N {
		_ = q.WritePacket(pkt)
	}
}
