package netserver

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/ipc"
)

// numbered is a datagram of size bytes that bears a number.
func numbered(f frame, n uint32, size int) []byte {
	p := f.payload
	f.payload = append(append([]byte{}, p...), make([]byte, size)...)
	binary.BigEndian.PutUint16(f.payload[4:], uint16(len(f.payload)))
	binary.BigEndian.PutUint32(f.payload[8:], n)
	return f.bytes()
}

// number is the number of a frame made by numbered, over IPv4.
func number(f []byte) uint32 { return binary.BigEndian.Uint32(f[ethLen+ip4Len+8:]) }

// sendAll sends frames in order, waiting for room.
func (b *bench) sendAll(id uint32, n int, f func(uint32) []byte) error {
	e := b.ends[id]
	for i := range uint32(n) {
		err := e.Transmit(nil, [][]byte{f(i)})
		for errors.Is(err, ipc.ErrFull) {
			if err = errors.Join(e.Flush(), e.TransmitWait()); err == nil {
				err = e.Transmit(nil, [][]byte{f(i)})
			}
		}
		if err != nil {
			return err
		}
	}
	return e.Flush()
}

// sendSoon is sendAll beside the test.
func (b *bench) sendSoon(id uint32, n int, f func(uint32) []byte) (wait func()) {
	done := make(chan error, 1)
	go func() { done <- b.sendAll(id, n, f) }()
	return func() { require.NoError(b.t, <-done) }
}

// awaitFull waits until the server has found no room in an instance's ring.
func (b *bench) awaitFull(id uint32) {
	end := b.ports.Load().byID[id].end
	require.Eventually(b.t, func() bool { return end.Stats().TxSleeps > 0 }, 30*time.Second, time.Millisecond)
}

func patient(o *Options) { o.Patience = time.Hour }

// TestRingBackPressure: what one instance sends to another waits for room
// there: all of it arrives, in order.
func TestRingBackPressure(t *testing.T) {
	b := newBenchWith(t, patient)
	const frames = 50_000
	wait := b.sendSoon(1, frames, func(n uint32) []byte {
		return numbered(out(shared4, dedicated4, protoUDP, udp(80, 9)), n, 1000)
	})
	b.awaitFull(3)
	// The wire goes on meanwhile: what comes from it does not wait.
	b.nic.arrive(in(peer4, shared4, protoUDP, udp(5, 81)).bytes())
	b.receive(2)
	for n := range uint32(frames) {
		require.Equal(t, n, number(b.receive(3)))
	}
	wait()
	require.Eventually(t, func() bool { return b.Stats().Ports[1].Out == frames+questions }, 30*time.Second, time.Millisecond)
	require.Empty(t, b.Stats().Ports[1].Drops)
}

// TestBackPressureBothWays: two instances that send to each other, and read
// only when both are held up, get everything.
func TestBackPressureBothWays(t *testing.T) {
	b := newBenchWith(t, patient)
	const frames = 20_000
	waitOne := b.sendSoon(1, frames, func(n uint32) []byte {
		return numbered(out(shared4, dedicated4, protoUDP, udp(80, 9)), n, 1000)
	})
	waitThree := b.sendSoon(3, frames, func(n uint32) []byte {
		return numbered(out(dedicated4, shared4, protoUDP, udp(9, 80)), n, 1000)
	})
	b.awaitFull(1)
	b.awaitFull(3)
	var readers sync.WaitGroup
	for _, id := range []uint32{1, 3} {
		readers.Go(func() {
			for n := range uint32(frames) {
				if got := number(b.receive(id)); got != n {
					t.Errorf("instance %d: frame %d instead of %d", id, got, n)
				}
			}
		})
	}
	readers.Wait()
	waitOne()
	waitThree()
}

// TestStuckReceiver: one that does not read costs others a bounded wait; then its
// frames are dropped by name and other flows of the same sender go on.
func TestStuckReceiver(t *testing.T) {
	b := newBench(t)
	const frames = 20_000
	for _, id := range []uint32{1, 2} {
		wait := b.sendSoon(id, frames, func(n uint32) []byte {
			if n%10 == 9 {
				return numbered(out(shared4, peer4, protoUDP, udp(79+uint16(id), 9)), n, 100)
			}
			return numbered(out(shared4, dedicated4, protoUDP, udp(79+uint16(id), 9)), n, 1000)
		})
		for n, f := range b.nic.awaitSent(frames / 10)[:frames/10] {
			require.EqualValues(t, 10*n+9, number(f))
		}
		wait()
		require.Eventually(t, func() bool { return b.Stats().Ports[id].In == frames }, 30*time.Second, time.Millisecond)
		require.NotZero(t, b.Stats().Ports[id].Drops["ring_full"])
	}
	// It reads again: it is served again.
	for range b.ports.Load().byID[3].end.Stats().TxPackets - questions {
		b.receive(3)
	}
	b.send(1, numbered(out(shared4, dedicated4, protoUDP, udp(80, 9)), 7, 4))
	require.EqualValues(t, 7, number(b.receive(3)))
}

// TestDetachHeldUp: an instance that is held up by another can leave, and so
// can the other.
func TestDetachHeldUp(t *testing.T) {
	for _, leaves := range []uint32{1, 3} {
		b := newBenchWith(t, func(o *Options) { o.Patience = 500 * time.Millisecond })
		sent := make(chan error, 1)
		go func() {
			sent <- b.sendAll(1, 50_000, func(n uint32) []byte {
				return numbered(out(shared4, dedicated4, protoUDP, udp(80, 9)), n, 1400)
			})
		}()
		b.awaitFull(3)
		require.NoError(t, b.Detach(leaves))
		require.NoError(t, b.ends[1].Close())
		<-sent // an error or not: its ring is closed
	}
}

// turnsNIC takes a frame only while all its senders are at the gate: one of
// them with it, the others waiting. So the order is the gate's alone.
type turnsNIC struct {
	*fakeNIC
	gate    *gate
	waiting int
	left    int // frames for which this holds
}

func (n *turnsNIC) Transmit(hdr *[10]byte, parts [][]byte) error {
	for deadline := time.Now().Add(30 * time.Second); n.left > 0 && time.Now().Before(deadline); runtime.Gosched() {
		n.gate.mu.Lock()
		waiting := len(n.gate.rota.waiting)
		n.gate.mu.Unlock()
		if waiting == n.waiting {
			n.left--
			break
		}
	}
	return n.fakeNIC.Transmit(hdr, parts)
}

// TestWeights: instances that always have frames share the uplink by weight.
func TestWeights(t *testing.T) {
	b := newBenchWith(t, func(*Options) {}, ipc.Options{Buffers: 1 << 15})
	weights := map[uint32]uint32{1: 4, 2: 2, 3: 1}
	for id, w := range weights {
		require.NoError(t, b.Limit(id, nil, &w))
	}
	require.ErrorIs(t, b.Limit(9, nil, nil), ErrPort)
	const size = 1400
	up := &b.uplinks[0]
	up.mu.Lock() // until all have frames
	fill := func(id uint32, f frame) (n int) {
		for b.ends[id].Transmit(nil, [][]byte{numbered(f, 0, size)}) == nil {
			n++
		}
		require.NoError(t, b.ends[id].Flush())
		return n
	}
	judged := fill(1, out(shared4, peer4, protoUDP, udp(80, 1)))
	all := judged + fill(2, out(shared4, peer4, protoUDP, udp(81, 2))) + fill(3, out(dedicated4, peer4, protoUDP, udp(80, 3)))
	up.q = &turnsNIC{fakeNIC: b.nic, gate: &up.gate, waiting: len(weights) - 1, left: judged}
	up.mu.Unlock()
	sent, count := b.nic.awaitSent(all), map[uint32]int{}
	for _, f := range sent[:judged] {
		count[uint32(parsed(t, f).ip.dport)]++
	}
	length := float64(len(sent[0]))
	require.Greater(t, judged, int(20*quantum/length), "enough to tell")
	for id, w := range weights {
		// A turn or two more or less at either end.
		require.InDelta(t, float64(judged)*float64(w)/7, count[id], 2*float64(w)*quantum/length, "%v", count)
	}
}
