package modeswitch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"pgregory.net/rapid"

	"junction/direct"
	"junction/switch/queuetest"
)

// fabric joins a client's endpoint to the two paths of a server's, as the NIC's
// program does: it steers, and it stamps.
type fabric struct {
	client *queuetest.Queue
	outs   [2]*queuetest.Queue
	// word says which path frames for the server take, and from bit 8 on the tag
	// that they are stamped with: one word, so that both change at once. Stamps
	// begin anew, with a new tag, only with mu held.
	mu    sync.Mutex
	word  atomic.Uint32
	stamp atomic.Uint32
	wg    sync.WaitGroup
	txMu  sync.Mutex     // of client's transmit side
	lanes [2]chan []byte // what is on its way by each path
}

func (f *fabric) run() {
	for i, q := range f.outs {
		f.lanes[i] = make(chan []byte, 256)
		f.wg.Go(func() { f.carry(q, f.lanes[i], i == 0) })
		f.wg.Go(func() { f.back(q) })
	}
	f.wg.Go(func() { f.steer() })
}

// carry moves frames onto a path; a slow one takes its time while paths are exchanged.
func (f *fabric) carry(to *queuetest.Queue, frames <-chan []byte, slow bool) {
	for b := range frames {
		if slow && f.word.Load()>>8 != 0 {
			time.Sleep(20 * time.Microsecond)
		}
		for err := to.Inject(b); err != nil; err = to.Inject(b) {
			if errors.Is(err, net.ErrClosed) || errors.Is(to.TransmitWait(), net.ErrClosed) {
				for range frames { // nobody receives any more
				}
				return
			}
		}
	}
}

// steer moves the client's frames to the path that is set.
func (f *fabric) steer() {
	defer func() {
		for _, l := range f.lanes {
			close(l)
		}
	}()
	batch := make([][]byte, 64)
	for {
		n, err := f.client.Receive(batch)
		if err != nil {
			return
		}
		for _, b := range batch[:n] {
			b = slices.Clone(b)
			f.lanes[f.number(b)] <- b
		}
		f.client.Release()
		if n == 0 && f.client.Wait() != nil {
			return
		}
	}
}

// number stamps a frame and says which path it takes.
func (f *fabric) number(b []byte) (path uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	word := f.word.Load()
	if tag := word >> 8; tag != 0 {
		b[0] |= direct.VnetStamped
		binary.LittleEndian.PutUint32(b[stampAt:], tag<<stampBits|f.stamp.Add(1)&0xffffff)
	}
	return word & 1
}

// back moves a path's frames to the client.
func (f *fabric) back(q *queuetest.Queue) {
	batch := make([][]byte, 64)
	for {
		n, err := q.Receive(batch)
		if err != nil {
			return
		}
		f.txMu.Lock()
		for _, b := range batch[:n] {
			for f.client.Inject(b) != nil {
				if errors.Is(f.client.TransmitWait(), net.ErrClosed) {
					f.txMu.Unlock()
					return
				}
			}
		}
		f.txMu.Unlock()
		q.Release()
		if n == 0 && q.Wait() != nil {
			return
		}
	}
}

// pathHost is a stack with one address on an endpoint.
func pathHost(t *testing.T, ip tcpip.Address, b Backend) (*stack.Stack, *Endpoint) {
	t.Helper()
	ep, err := New(Options{Backend: b})
	require.NoError(t, err)
	h := attach(t, ep, ip)
	return h, ep
}

// exchanger is a rig of two stacks, of which the server has two paths.
type exchanger struct {
	*fabric
	client, server *stack.Stack
	ep             *Endpoint
	paths          [2]*Path
	nonce          uint64
}

// newExchanger makes one whose paths cut segments or not.
func newExchanger(t *testing.T, cut [2]bool) *exchanger {
	t.Helper()
	f := &fabric{}
	var q [3]*queuetest.Queue
	var backs [3]Backend
	for i := range q {
		var wire *queuetest.Queue
		q[i], wire = queuetest.Pair(queuetest.Options{Slots: 1024})
		backs[i] = Backend{Queues: []Queue{q[i]}, MAC: ourMAC, MTU: 1500, RXTrusted: true}
		if i < 2 {
			f.outs[i] = wire
			if cut[i] {
				cuts(&backs[i])
			}
		} else {
			f.client = wire
		}
	}
	backs[2].MAC = theirMAC
	x := &exchanger{fabric: f}
	x.server, x.ep = pathHost(t, ourIP, backs[0])
	x.client, _ = pathHost(t, theirIP, backs[2])
	require.Nil(t, x.server.AddStaticNeighbor(nicID, ipv4.ProtocolNumber, theirIP, tcpip.LinkAddress(theirMAC)))
	require.Nil(t, x.client.AddStaticNeighbor(nicID, ipv4.ProtocolNumber, ourIP, tcpip.LinkAddress(ourMAC)))
	second, err := x.ep.Add(backs[1])
	require.NoError(t, err)
	x.paths = [2]*Path{x.ep.First(), second}
	f.run()
	t.Cleanup(func() {
		for _, w := range q {
			w.Close()
		}
		f.wg.Wait()
	})
	return x
}

// exchange makes the server use the other path, make before break.
// flowing says that frames come all the time.
func (x *exchanger) exchange(t *testing.T, flowing bool) Merged {
	t.Helper()
	from := x.word.Load() & 1
	next := 1 - from
	x.nonce++
	tag := uint8(x.nonce%255 + 1)
	require.NoError(t, x.ep.Merge(x.paths[from], x.paths[next], tag, time.Minute))
	x.mu.Lock()
	x.stamp.Store(0)
	x.word.Store(uint32(tag)<<8 | from)
	x.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	x.mark(ctx, t, from, flowing)
	x.ep.Stamped()
	x.word.Store(uint32(tag)<<8 | next)
	_, err := x.ep.Move(ctx, x.paths[next], false)
	require.NoError(t, err)
	x.mark(ctx, t, from, flowing)
	x.word.Store(next)
	x.ep.Drained(x.paths[from])
	return x.ep.EndMerge()
}

// mark waits until all that took a path before now has come by it.
func (x *exchanger) mark(ctx context.Context, t *testing.T, path uint32, flowing bool) {
	t.Helper()
	if flowing {
		// When two more frames have been stamped, the one that steer was just
		// about to pass on is on its way.
		at := x.stamp.Load()
		require.Eventually(t, func() bool { return x.stamp.Load() >= at+2 }, time.Minute, 10*time.Microsecond)
	}
	x.nonce++
	x.lanes[path] <- vnet(0, Probe([6]byte(ourMAC), x.nonce))
	require.NoError(t, x.paths[path].AwaitProbe(ctx, x.nonce))
}

// Bulk data flows both ways while the paths are exchanged: not a byte is wrong,
// and every frame is accounted for.
func TestExchangeUnderLoad(t *testing.T) {
	const rounds = 20
	for _, cut := range [][2]bool{{false, false}, {true, false}, {false, true}} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			x := newExchanger(t, cut)
			var wg sync.WaitGroup
			var ended atomic.Bool
			defer func() {
				ended.Store(true)
				wg.Wait()
			}()
			l, err := gonet.ListenTCP(x.server, tcpip.FullAddress{Port: 80}, ipv4.ProtocolNumber)
			require.NoError(t, err)
			defer l.Close()
			for range 4 {
				c, err := gonet.DialTCP(x.client, tcpip.FullAddress{Addr: ourIP, Port: 80}, ipv4.ProtocolNumber)
				require.NoError(t, err)
				s, err := l.Accept()
				require.NoError(t, err)
				wg.Go(func() { pump(t, c, &ended) })
				wg.Go(func() { check(t, s) })
				wg.Go(func() { pump(t, s, &ended) })
				wg.Go(func() { check(t, c) })
			}
			var sum Merged
			for range rounds {
				m := x.exchange(t, true)
				require.Zero(t, m.Duplicates)
				require.Zero(t, m.Lost)
				require.Zero(t, m.Reordered)
				sum.Stamped += m.Stamped
				sum.InFlight += m.InFlight
				sum.Held += m.Held
			}
			ended.Store(true)
			wg.Wait()
			require.NotZero(t, sum.Stamped)
			t.Logf("%+v", sum)
			s := x.ep.Stats()
			requireConserved(t, s)
			require.Zero(t, s.RxHeld)
			delete(s.Drops, "tx_full") // a busy machine may let nobody take frames off the wire until the backlog is full
			require.Equal(t, map[string]uint64{"rx_probe": 2 * rounds}, s.Drops)
		})
	}
}

// pump sends numbers until told to end.
func pump(t *testing.T, c net.Conn, ended *atomic.Bool) {
	b := make([]byte, 64<<10)
	for n := uint32(0); !ended.Load(); {
		for i := 0; i < len(b); i += 4 {
			binary.BigEndian.PutUint32(b[i:], n)
			n++
		}
		if _, err := c.Write(b); err != nil {
			t.Errorf("write: %v", err)
			return
		}
	}
	if err := c.(*gonet.TCPConn).CloseWrite(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// check reads numbers to the end.
func check(t *testing.T, c net.Conn) {
	b := make([]byte, 64<<10)
	for n := uint32(0); ; {
		k, err := io.ReadFull(c, b)
		for i := 0; i+4 <= k; i += 4 {
			if got := binary.BigEndian.Uint32(b[i:]); got != n {
				t.Errorf("number %d instead of %d", got, n)
				return
			}
			n++
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("read: %v", err)
			}
			return
		}
	}
}

// stuck is a queue that never sends what it has.
type stuck struct {
	device
	wake chan struct{}
}

func (*stuck) Drained() (bool, error) { return false, nil }
func (s *stuck) DrainWait() error     { <-s.wake; return nil }
func (s *stuck) Wait() error          { <-s.wake; return nil }
func (s *stuck) Wake() {
	for range 2 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// sluggish is a queue that has sent what it has when it is told so.
type sluggish struct {
	*queuetest.Queue
	sent atomic.Bool
}

func (s *sluggish) Drained() (bool, error) { return s.sent.Load(), nil }

// A path that is empty at times is left at such a moment, and no packet is held.
func TestMoveTakesItsTurn(t *testing.T) {
	b, oldWire := backend(false)
	defer oldWire.Close()
	old := &sluggish{Queue: b.Queues[0].(*queuetest.Queue)}
	b.Queues = []Queue{old}
	ep, err := New(Options{Backend: b})
	require.NoError(t, err)
	attach(t, ep, ourIP)
	ep.look = time.Minute
	b, wire := backend(false)
	defer wire.Close()
	p, err := ep.Add(b)
	require.NoError(t, err)
	moved := make(chan Moved, 1)
	go func() {
		m, err := ep.Move(t.Context(), p, false)
		if err != nil {
			t.Error(err)
		}
		moved <- m
	}()
	require.Eventually(t, func() bool { return ep.turn.Load() != nil }, time.Minute, time.Millisecond)
	pkt := outgoing(ep, stack.GSO{}, []byte{1})
	defer pkt.DecRef()
	require.Nil(t, ep.QDisc().WritePacket(pkt))
	require.Equal(t, ep.First(), ep.Egress(), "it has not sent all")
	old.sent.Store(true)
	require.Nil(t, ep.QDisc().WritePacket(pkt))
	require.Equal(t, Moved{}, <-moved)
	require.Equal(t, p, ep.Egress())
	sent := func(w *queuetest.Queue) int {
		batch := make([][]byte, 8)
		n, err := w.Receive(batch)
		require.NoError(t, err)
		return n
	}
	require.Equal(t, 1, sent(oldWire))
	require.Equal(t, 1, sent(wire))
	requireConserved(t, ep.Stats())
}

// An old path that does not send what it has keeps its place, and packets that
// were held meanwhile leave by it.
func TestMoveFromStuckPath(t *testing.T) {
	old := &stuck{wake: make(chan struct{}, 8)}
	ep, wire := wireEndpoint(t, func(b *Backend) { b.Queues = []Queue{old} })
	b, next := backend(false)
	defer next.Close()
	p, err := ep.Add(b)
	require.NoError(t, err)
	require.ErrorIs(t, ep.First().Remove(), ErrEgress)
	_ = wire
	ctx, cancel := context.WithCancel(t.Context())
	moved := make(chan error, 1)
	go func() {
		_, err := ep.Move(ctx, p, false)
		moved <- err
	}()
	require.Eventually(t, func() bool { return ep.Egress() == nil }, 30*time.Second, time.Millisecond)
	pkt := outgoing(ep, stack.GSO{}, []byte{1})
	defer pkt.DecRef()
	require.Nil(t, ep.QDisc().WritePacket(pkt))
	s := ep.Stats()
	require.EqualValues(t, 1, s.TxWaiting)
	requireConserved(t, s)
	cancel()
	require.ErrorIs(t, <-moved, ErrNotDrained)
	require.Equal(t, ep.First(), ep.Egress())
	s = ep.Stats()
	require.EqualValues(t, 1, s.TxSent)
	_, err = ep.Move(ctx, p, true)
	require.NoError(t, err)
	require.Equal(t, p, ep.Egress())
	require.ErrorIs(t, p.Remove(), ErrEgress)
	_, err = ep.Move(ctx, ep.First(), false)
	require.NoError(t, err, "nothing is left on that one")
	require.NoError(t, p.Remove())
	requireConserved(t, ep.Stats())
}

// Packets keep their order across a move, whoever sends them.
func TestMoveKeepsOrder(t *testing.T) {
	x := newExchanger(t, [2]bool{})
	const each = 10_000
	c, err := gonet.DialUDP(x.server, &tcpip.FullAddress{Addr: ourIP, Port: 9}, &tcpip.FullAddress{Addr: theirIP, Port: 9}, ipv4.ProtocolNumber)
	require.NoError(t, err)
	defer c.Close()
	r, err := gonet.DialUDP(x.client, &tcpip.FullAddress{Addr: theirIP, Port: 9}, nil, ipv4.ProtocolNumber)
	require.NoError(t, err)
	defer r.Close()
	var got []uint32
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 64)
		for {
			n, err := r.Read(b)
			if err != nil || n != 4 {
				return
			}
			got = append(got, binary.BigEndian.Uint32(b))
		}
	})
	for n := range uint32(each) {
		_, err := c.Write(binary.BigEndian.AppendUint32(nil, n))
		require.NoError(t, err)
		if n%500 == 0 {
			x.exchange(t, false)
		}
	}
	_, err = c.Write([]byte("end of it"))
	require.NoError(t, err)
	wg.Wait()
	require.True(t, slices.IsSorted(got), "an order other than that of sending")
	require.NotEmpty(t, got)
}

// A back end that some packets leave by for good does not decide what new connections
// are told of offloads; each packet leaves by the path that takes it, whichever there
// are.
func TestPartly(t *testing.T) {
	first, wire := backend(false)
	cuts(&first)
	ep, err := New(Options{Backend: first})
	require.NoError(t, err)
	s := attach(t, ep, ourIP)
	t.Cleanup(wire.Close)
	require.Nil(t, s.AddStaticNeighbor(nicID, ipv4.ProtocolNumber, theirIP, tcpip.LinkAddress(theirMAC)))
	const port = 80
	second, own := backend(false)
	t.Cleanup(own.Close)
	second.Partly = true
	second.Takes = func(head []byte) bool { return binary.BigEndian.Uint16(head[34:]) == port }
	p, err := ep.Add(second)
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		to, path := ep.First(), [2]*queuetest.Queue{wire, wire}
		if rapid.Bool().Draw(t, "moved") {
			to, path[1] = p, own
		}
		_, err := ep.Move(context.Background(), to, false)
		require.NoError(t, err)
		require.Equal(t, stack.HostGSOSupported, ep.SupportedGSO())
		for n := range rapid.IntRange(1, 20).Draw(t, "packets") {
			listed := rapid.IntRange(0, 1).Draw(t, "listed")
			conn := dialUDP(t, s, uint16(port+1-listed))
			_, err := conn.Write([]byte{byte(n)})
			require.NoError(t, err)
			require.NoError(t, conn.Close())
			require.Equal(t, byte(n), oneFrom(t, path[listed])[42])
			other := wire
			if path[listed] == wire {
				other = own
			}
			k, err := other.Receive(make([][]byte, 1))
			require.NoError(t, err)
			require.Zero(t, k, "a packet left by the other path, too")
		}
	})
	_, err = ep.Move(context.Background(), ep.First(), false)
	require.NoError(t, err)
	require.NoError(t, p.Remove())
}

// dialUDP makes a socket that sends from a port.
func dialUDP(t require.TestingT, s *stack.Stack, port uint16) net.Conn {
	c, err := gonet.DialUDP(s, &tcpip.FullAddress{NIC: nicID, Addr: ourIP, Port: port},
		&tcpip.FullAddress{NIC: nicID, Addr: theirIP, Port: 9}, ipv4.ProtocolNumber)
	require.NoError(t, err)
	return c
}

// oneFrom waits for a frame at the other end of a queue.
func oneFrom(t require.TestingT, q *queuetest.Queue) []byte {
	batch := make([][]byte, 1)
	for {
		n, err := q.Receive(batch)
		require.NoError(t, err)
		if n == 1 {
			f := bytes.Clone(batch[0][VnetHdrLen:])
			q.Release()
			return f
		}
		require.NoError(t, q.Wait())
	}
}

// What does not fit is refused.
func TestAddRefuses(t *testing.T) {
	ep, _ := wireEndpoint(t, nil)
	b, wire := backend(false)
	defer wire.Close()
	small, other := b, b
	small.MTU = 1000
	other.MAC = theirMAC
	for _, bad := range []Backend{small, other} {
		_, err := ep.Add(bad)
		require.ErrorIs(t, err, ErrMismatch)
	}
	_, err := ep.Add(Backend{})
	require.ErrorIs(t, err, ErrBackend)
	p, err := ep.Add(b)
	require.NoError(t, err)
	require.ErrorIs(t, ep.Merge(ep.First(), p, 1, time.Second), ErrNotAttached)
	ep.Close()
	_, err = ep.Add(b)
	require.ErrorIs(t, err, net.ErrClosed)
}

// A probe is for who waits for it, not for the stack.
func TestProbe(t *testing.T) {
	h := newHost(t, false)
	frame := Probe([6]byte(ourMAC), 77)
	require.NoError(t, h.wire.Inject(vnet(0, Probe([6]byte(ourMAC), 76))))
	require.NoError(t, h.wire.Inject(vnet(0, frame[:15])))
	require.NoError(t, h.wire.Inject(vnet(0, frame)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, h.ep.First().AwaitProbe(ctx, 77))
	require.Equal(t, map[string]uint64{"rx_probe": 3}, h.settle(t, 3).Drops)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, h.ep.First().AwaitProbe(ctx, 78), "no probe frame")
}
