package netserver

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"junction/ipc"
)

// forwarding is a worker between sinkholes: what a frame costs in the server
// itself.
func forwarding(b testing.TB) (*worker, *port) {
	s := &Server{opts: Options{Uplink: newFakeNIC()}, maxFrame: 1514}
	f := newForwarder(b)
	s.fwd.mac = f.mac
	s.fwd.table.Store(f.view())
	s.uplinks = []outlet{{q: sinkhole{}, uplink: true, tap: &s.tap}}
	p := &port{sender: one}
	p.out.q, p.out.tap = sinkhole{}, &p.tap
	p.work = newWorker(s, p)
	s.publish([]*port{p})
	return newWorker(s, nil), p
}

// batches runs f for n frames, in batches.
func batches(w *worker, n int, f func()) {
	for ; n > 0; n -= batchFrames {
		w.begin()
		for range min(n, batchFrames) {
			f()
		}
		w.end(n > batchFrames)
	}
}

func BenchmarkFromUplink(b *testing.B) {
	w, _ := forwarding(b)
	frame := append(make([]byte, ipc.VnetHdrLen), in(peer4, shared4, protoTCP, tcp(5, 80, header.TCPFlagAck)).bytes()...)
	b.ReportAllocs()
	batches(w, b.N, func() { w.fromUplink(frame) })
}

func BenchmarkFromRing(b *testing.B) {
	_, p := forwarding(b)
	frame := out(shared4, peer4, protoTCP, append(tcp(80, 5, header.TCPFlagAck), make([]byte, 1400)...)).bytes()
	v := ipc.View{Head: append(make([]byte, ipc.VnetHdrLen), frame[:headLen]...)}
	v.Tail[0] = frame[headLen:]
	b.ReportAllocs()
	batches(p.work, b.N, func() { p.work.fromRing(&v) })
}

// TestForwardingAllocatesNothing in steady state, in either direction.
func TestForwardingAllocatesNothing(t *testing.T) {
	w, p := forwarding(t)
	up := append(make([]byte, ipc.VnetHdrLen), in(peer6, shared6, protoUDP, udp(5, 80)).bytes()...)
	down := out(shared6, peer6, protoUDP, udp(80, 5)).bytes()
	v := ipc.View{Head: append(make([]byte, ipc.VnetHdrLen), down...)}
	n := testing.AllocsPerRun(100, func() {
		batches(w, batchFrames, func() { w.fromUplink(up) })
		batches(p.work, batchFrames, func() { p.work.fromRing(&v) })
	})
	require.Zero(t, n)
	a, b := w.account(), p.work.account()
	require.Equal(t, a.In, a.Out)
	require.Equal(t, b.In, b.Out)
}
