package modeswitch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"junction/direct"
	"junction/switch/queuetest"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// outgoing makes a packet as the stack hands it to a link endpoint: a header
// view, then the payload in pieces.
func outgoing(ep *Endpoint, gso stack.GSO, pieces ...[]byte) *stack.PacketBuffer {
	var payload buffer.Buffer
	for _, p := range pieces {
		v := buffer.NewViewWithData(p)
		b := buffer.MakeWithView(v)
		payload.Merge(&b)
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 14 + 20 + 20 + 6, Payload: payload})
	header.TCP(pkt.TransportHeader().Push(header.TCPMinimumSize)).SetDataOffset(header.TCPMinimumSize)
	header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{SrcAddr: ourIP, DstAddr: theirIP})
	pkt.NetworkProtocolNumber = ipv4.ProtocolNumber
	pkt.EgressRoute.LocalLinkAddress = tcpip.LinkAddress(ourMAC)
	pkt.EgressRoute.RemoteLinkAddress = tcpip.LinkAddress(theirMAC)
	pkt.GSOOptions = gso
	ep.AddHeader(pkt)
	return pkt
}

func tcpGSO(mss uint16) stack.GSO {
	return stack.GSO{
		Type: stack.GSOTCPv4, NeedsCsum: true, CsumOffset: header.TCPChecksumOffset,
		L3HdrLen: header.IPv4MinimumSize, MSS: mss, MaxSize: 1 << 16,
	}
}

// cuts makes a back end one that cuts segments.
func cuts(b *Backend) { b.TXChecksum, b.GSOMax = true, 1<<16 }

func wireEndpoint(t testing.TB, edit func(*Backend)) (*Endpoint, *queuetest.Queue) {
	t.Helper()
	b, wire := backend(false)
	if edit != nil {
		edit(&b)
	}
	ep, err := New(Options{Backend: b})
	require.NoError(t, err)
	t.Cleanup(ep.Close)
	return ep, wire
}

func receiveOne(t testing.TB, wire *queuetest.Queue) (vnetHdr, []byte) {
	t.Helper()
	batch := make([][]byte, 2)
	n, err := wire.Receive(batch)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	h, frame, ok := decodeVnet(batch[0])
	require.True(t, ok)
	return h, frame
}

func TestTransmitFrame(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 1000)
	for _, c := range []struct {
		name string
		gso  stack.GSO
		want vnetHdr
	}{
		{"full checksum", stack.GSO{}, vnetHdr{}},
		{"segments cut by the stack", stack.GSO{Type: stack.GSOGvisor, MSS: 10}, vnetHdr{}},
		{"partial checksum", tcpGSO(1460), vnetHdr{flags: vnetNeedsCsum, csumStart: 34, csumOff: 16}},
		{"segments", tcpGSO(500), vnetHdr{flags: vnetNeedsCsum, gsoType: vnetGSOTCPv4, hdrLen: 54, gsoSize: 500, csumStart: 34, csumOff: 16}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ep, wire := wireEndpoint(t, cuts)
			pkt := outgoing(ep, c.gso, long, []byte("tail"))
			defer pkt.DecRef()
			require.Nil(t, ep.QDisc().WritePacket(pkt))
			h, frame := receiveOne(t, wire)
			require.Equal(t, c.want, h)
			eth := header.Ethernet(frame)
			require.Equal(t, tcpip.LinkAddress(ourMAC), eth.SourceAddress())
			require.Equal(t, tcpip.LinkAddress(theirMAC), eth.DestinationAddress())
			require.Equal(t, ipv4.ProtocolNumber, eth.Type())
			require.Equal(t, append(append([]byte(nil), long...), "tail"...), frame[54:])
			requireConserved(t, ep.Stats())
		})
	}
}

func TestTransmitManyPieces(t *testing.T) {
	ep, wire := wireEndpoint(t, nil)
	pieces := make([][]byte, 1400)
	for i := range pieces {
		pieces[i] = []byte{byte(i)}
	}
	pkt := outgoing(ep, stack.GSO{}, pieces...)
	defer pkt.DecRef()
	require.Nil(t, ep.QDisc().WritePacket(pkt))
	_, frame := receiveOne(t, wire)
	require.Equal(t, bytes.Join(pieces, nil), frame[54:])
}

func TestTransmitTooLong(t *testing.T) {
	ep, _ := wireEndpoint(t, nil)
	pkt := outgoing(ep, stack.GSO{}, make([]byte, 1461))
	defer pkt.DecRef()
	require.IsType(t, &tcpip.ErrMessageTooLong{}, ep.QDisc().WritePacket(pkt))
	require.Equal(t, map[string]uint64{"tx_too_long": 1}, ep.Stats().Drops)
	requireConserved(t, ep.Stats())
}

// What a full device does not take is kept in order, up to a limit, and sent
// when there is room.
func TestTransmitFull(t *testing.T) {
	const slots, more = 1024, 7
	ep, wire := wireEndpoint(t, nil)
	for n := range slots + maxBacklog {
		require.Nil(t, write(ep, n))
	}
	for n := range more {
		require.IsType(t, &tcpip.ErrNoBufferSpace{}, write(ep, n))
	}
	s := ep.Stats()
	require.Equal(t, map[string]uint64{"tx_full": more}, s.Drops)
	require.Equal(t, uint64(maxBacklog), s.TxWaiting)
	requireConserved(t, s)
	batch := make([][]byte, 10)
	for next := 0; next < slots+maxBacklog; {
		n, err := wire.Receive(batch)
		require.NoError(t, err)
		for _, b := range batch[:n] {
			require.Equal(t, uint32(next), binary.BigEndian.Uint32(b[VnetHdrLen+54:]))
			next++
		}
		wire.Release()
		if n == 0 {
			require.NoError(t, wire.Wait())
		}
	}
	require.Eventually(t, func() bool { return write(ep, 0) == nil && ep.Stats().TxWaiting == 0 }, time.Minute, time.Millisecond)
	requireConserved(t, ep.Stats())
}

// write sends a packet with the number n in it.
func write(ep *Endpoint, n int) tcpip.Error {
	pkt := outgoing(ep, stack.GSO{}, binary.BigEndian.AppendUint32(nil, uint32(n)))
	defer pkt.DecRef()
	return ep.QDisc().WritePacket(pkt)
}

// A device that is closed while it is full ends the wait and is charged with
// what it has not taken.
func TestCloseWhileFull(t *testing.T) {
	for _, closeDevice := range []bool{false, true} {
		ep, wire := wireEndpoint(t, nil)
		for n := range 1024 + 10 {
			require.Nil(t, write(ep, n))
		}
		require.Equal(t, uint64(10), ep.Stats().TxWaiting)
		if closeDevice {
			wire.Close()
		}
		ep.Close()
		require.Equal(t, map[string]uint64{"tx_closed": 10}, ep.Stats().Drops)
		requireConserved(t, ep.Stats())
	}
}

// busy is a queue whose Flush leaves frames behind a few times.
type busy struct {
	*queuetest.Queue
	times atomic.Int32
}

func (b *busy) Flush() error {
	if b.times.Add(-1) >= 0 {
		return direct.ErrFull
	}
	return b.Queue.Flush()
}

func (b *busy) TransmitWait() error { return nil }

func TestFlushIsRepeated(t *testing.T) {
	b := &busy{}
	ep, wire := wireEndpoint(t, func(be *Backend) {
		b.Queue = be.Queues[0].(*queuetest.Queue)
		be.Queues[0] = b
	})
	b.times.Store(5)
	require.Nil(t, write(ep, 0))
	require.NoError(t, wire.Wait())
	receiveMany(t, wire, 1)
}

func receiveMany(t testing.TB, wire *queuetest.Queue, n int) {
	t.Helper()
	batch := make([][]byte, n)
	got, err := wire.Receive(batch)
	require.NoError(t, err)
	require.Equal(t, n, got)
	wire.Release()
}

func TestTransmitAfterClose(t *testing.T) {
	ep, _ := wireEndpoint(t, nil)
	pkt := outgoing(ep, stack.GSO{}, make([]byte, 10))
	defer pkt.DecRef()
	ep.Close()
	require.IsType(t, &tcpip.ErrClosedForSend{}, ep.QDisc().WritePacket(pkt))
	require.Equal(t, map[string]uint64{"tx_closed": 1}, ep.Stats().Drops)
}

// broken is a queue that cannot transmit.
type broken struct {
	*queuetest.Queue
	err error
}

func (b broken) Transmit(*[VnetHdrLen]byte, [][]byte) error { return b.err }

func TestTransmitErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		want   tcpip.Error
		reason string
	}{
		{net.ErrClosed, &tcpip.ErrClosedForSend{}, "tx_closed"},
		{errors.New("device on fire"), &tcpip.ErrAborted{}, "tx_queue_error"},
		{fmt.Errorf("tap: %w", direct.ErrTooLong), &tcpip.ErrMessageTooLong{}, "tx_too_long"},
	} {
		ep, _ := wireEndpoint(t, func(b *Backend) {
			b.Queues = []Queue{broken{b.Queues[0].(*queuetest.Queue), c.err}}
		})
		pkt := outgoing(ep, stack.GSO{}, make([]byte, 10))
		defer pkt.DecRef()
		require.Equal(t, c.want, ep.QDisc().WritePacket(pkt))
		require.Equal(t, map[string]uint64{c.reason: 1}, ep.Stats().Drops)
	}
}

// All packets written by many goroutines leave, whoever does the kick.
func TestTransmitConcurrently(t *testing.T) {
	const writers, each = 8, 100
	ep, wire := wireEndpoint(t, nil)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			pkt := outgoing(ep, stack.GSO{}, make([]byte, 10))
			defer pkt.DecRef()
			for range each {
				_ = ep.QDisc().WritePacket(pkt)
			}
		})
	}
	wg.Wait()
	require.Equal(t, uint64(writers*each), ep.Stats().TxSent)
	receiveMany(t, wire, writers*each)
}

func TestFlowsKeepToTheirQueue(t *testing.T) {
	var wires []*queuetest.Queue
	ep, _ := wireEndpoint(t, func(b *Backend) {
		b.Queues = nil
		for range 4 {
			q, wire := queuetest.Pair(queuetest.Options{})
			b.Queues, wires = append(b.Queues, q), append(wires, wire)
		}
	})
	used := 0
	for flow := range 16 {
		pkt := outgoing(ep, stack.GSO{}, []byte{1})
		header.IPv4(pkt.NetworkHeader().Slice()).SetDestinationAddress(tcpip.AddrFrom4([4]byte{198, 18, 0, byte(flow)}))
		for range 3 {
			require.Nil(t, ep.QDisc().WritePacket(pkt))
		}
		pkt.DecRef()
		batch := make([][]byte, 8)
		got := 0
		for i, w := range wires {
			if n, _ := w.Receive(batch); n != 0 {
				require.Equal(t, 3, n)
				got++
				used |= 1 << i
			}
		}
		require.Equal(t, 1, got)
	}
	require.Equal(t, 0b1111, used, "16 flows use all queues")
}

// TestCloseFlushes: packets that were left to the receiver to flush go out
// before the endpoint closes.
func TestCloseFlushes(t *testing.T) {
	ep, wire := wireEndpoint(t, nil)
	q := ep.first.queues[0]
	q.flushFor(true) // a receiver is awake
	for n := range 3 {
		require.Nil(t, write(ep, n))
	}
	require.True(t, q.dirty.Load(), "left to the receiver")
	ep.Close()
	require.False(t, q.dirty.Load())
	receiveMany(t, wire, 3)
	require.NotNil(t, write(ep, 3), "closed")
}
