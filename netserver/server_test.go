package netserver

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"junction/direct"
	"junction/ipc"
)

// fakeNIC is a device with one queue, in memory.
type fakeNIC struct {
	mu      sync.Mutex
	cond    *sync.Cond
	arrived [][]byte
	sent    [][]byte
	full    bool // it takes nothing
	closed  bool
	woken   bool
}

func newFakeNIC() *fakeNIC {
	n := &fakeNIC{}
	n.cond = sync.NewCond(&n.mu)
	return n
}

func (n *fakeNIC) Queues() []direct.Queue       { return []direct.Queue{n} }
func (n *fakeNIC) MAC() net.HardwareAddr        { return ourMAC[:] }
func (n *fakeNIC) MTU() int                     { return 1500 }
func (n *fakeNIC) Offloads() direct.Offloads    { return direct.Offloads{TXChecksum: true} }
func (n *fakeNIC) Mode() direct.Mode            { return direct.Mode{NIC: "fake"} }
func (n *fakeNIC) Stats() (s direct.QueueStats) { return s }
func (n *fakeNIC) Release()                     {}
func (n *fakeNIC) Wake()                        { n.change(func() { n.woken = true }) }

func (n *fakeNIC) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	n.cond.Broadcast()
}

func (n *fakeNIC) Close() error {
	n.change(func() { n.closed = true })
	return nil
}

func (n *fakeNIC) arrive(frames ...[]byte) {
	n.change(func() {
		for _, f := range frames {
			n.arrived = append(n.arrived, append(make([]byte, ipc.VnetHdrLen), f...))
		}
	})
}

func (n *fakeNIC) Receive(batch [][]byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return 0, net.ErrClosed
	}
	k := copy(batch, n.arrived)
	n.arrived = n.arrived[k:]
	return k, nil
}

func (n *fakeNIC) Wait() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.arrived) == 0 && !n.closed && !n.woken {
		n.cond.Wait()
	}
	n.woken = false
	return nil
}

func (n *fakeNIC) Transmit(_ *[10]byte, parts [][]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.full {
		return direct.ErrFull
	}
	n.sent = append(n.sent, slices.Concat(parts...))
	n.cond.Broadcast()
	return nil
}

func (n *fakeNIC) Flush() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.full {
		return direct.ErrFull
	}
	return nil
}

func (n *fakeNIC) TransmitWait() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.full && !n.closed {
		n.cond.Wait()
	}
	return nil
}

// awaitSent waits for k sent frames and takes them.
func (n *fakeNIC) awaitSent(k int) [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.sent) < k {
		n.cond.Wait()
	}
	sent := n.sent
	n.sent = nil
	return sent
}

// bench is a server with a fake NIC and the test's instances.
type bench struct {
	*Server
	t    *testing.T
	nic  *fakeNIC
	ends map[uint32]*ipc.End
	bad  chan error
}

func newBench(t *testing.T) *bench { return newBenchWith(t, func(*Options) {}) }

// newBenchWith is newBench with changed options, and rings of other sizes if
// given.
func newBenchWith(t *testing.T, change func(*Options), rings ...ipc.Options) *bench {
	size := append(rings, ipc.Options{})[0]
	b := &bench{t: t, nic: newFakeNIC(), ends: make(map[uint32]*ipc.End), bad: make(chan error, 4)}
	var err error
	o := Options{Uplink: b.nic, View: newForwarder(t).view(), Broken: func(_ uint32, err error) { b.bad <- err }}
	change(&o)
	b.Server, err = New(o)
	require.NoError(t, err)
	for _, s := range []sender{one, two, three} {
		pair, err := ipc.NewPair(size)
		require.NoError(t, err)
		t.Cleanup(func() { _ = pair.Close() })
		mine, err := pair.Attach(ipc.InstanceSide)
		require.NoError(t, err)
		theirs, err := pair.Attach(ipc.ServerSide)
		require.NoError(t, err)
		require.NoError(t, b.Attach(Port{ID: s.id, Shared: s.shared}, theirs))
		b.ends[s.id] = mine
		t.Cleanup(func() { _ = mine.Close() })
	}
	for id := range b.ends {
		require.Eventually(t, func() bool { return b.Stats().Ports[id].Made == questions }, 30*time.Second, time.Millisecond)
	}
	t.Cleanup(func() {
		b.Close()
		require.NoError(t, b.nic.Close())
		b.Wait()
		b.check()
	})
	return b
}

// check checks that every frame is accounted for.
func (b *bench) check() Account {
	s := b.Stats()
	all := s.Uplink.Account
	all.add(&s.Gone.Account)
	for _, p := range s.Ports {
		all.add(&p.Account)
	}
	drops := uint64(0)
	for _, n := range all.drops {
		drops += n
	}
	require.Equal(b.t, all.In+all.Made, all.Out+all.Answered+drops, "%+v", s)
	return all
}

func (b *bench) send(id uint32, frames ...[]byte) {
	for _, f := range frames {
		require.NoError(b.t, b.ends[id].Transmit(nil, [][]byte{f}))
	}
	require.NoError(b.t, b.ends[id].Flush())
}

// questions is how many frames the server asks with, at first.
const questions = 2

// isQuery tells whether a frame is one of those that the server asks with what
// an instance has joined.
func isQuery(f []byte) bool {
	return mac(f[6:12]) == ourMAC && (f[14] == 0x46 && f[ethLen+24] == igmpQuery || f[14] == 0x60 && f[20] == 0 && f[ethLen+ip6Len+8] == 130)
}

// receive waits for a frame of an instance's, but for the server's own questions.
func (b *bench) receive(id uint32) []byte {
	batch := make([][]byte, 1)
	for {
		n, err := b.ends[id].Receive(batch)
		require.NoError(b.t, err)
		if n == 1 {
			f := append([]byte{}, batch[0][ipc.VnetHdrLen:]...)
			b.ends[id].Release()
			if isQuery(f) {
				continue
			}
			return f
		}
		require.NoError(b.t, b.ends[id].Wait())
	}
}

func TestForwarding(t *testing.T) {
	b := newBench(t)
	toOne := in(peer4, shared4, protoTCP, tcp(5, 80, header.TCPFlagSyn)).bytes()
	toThree := in(peer6, dedicated6, protoUDP, udp(5, 9, make([]byte, 1400)...)).bytes()
	b.nic.arrive(toOne, toThree)
	require.Equal(t, toOne, b.receive(1))
	require.Equal(t, toThree, b.receive(3))

	fromTwo := out(shared4, peer4, protoUDP, udp(81, 9, make([]byte, 1400)...)).bytes()
	b.send(2, fromTwo)
	require.Equal(t, [][]byte{fromTwo}, b.nic.awaitSent(1))

	between := out(shared4, dedicated4, protoUDP, udp(80, 9, make([]byte, 1000)...)).bytes()
	b.send(1, between)
	require.Equal(t, between, b.receive(3))

	b.nic.arrive(arp(arpRequest, peerMAC, peer4, shared4))
	require.Equal(t, byte(arpReply), b.nic.awaitSent(1)[0][21])
}

// TestFlood: a group's frame reaches all instances but its sender, and the wire.
func TestFlood(t *testing.T) {
	b := newBench(t)
	group := toGroup(out(dedicated4, peer4, protoUDP, udp(81, 5353))).bytes()
	b.nic.arrive(toGroup(in(peer4, peer4, protoUDP, udp(5, 5353))).bytes())
	for id := range b.ends {
		b.receive(id)
	}
	b.send(3, group)
	require.Equal(t, group, b.receive(1))
	require.Equal(t, group, b.receive(2))
	require.Equal(t, group, b.nic.awaitSent(1)[0])
}

// TestBackPressure: what an instance sends waits for a full NIC instead of being lost.
func TestBackPressure(t *testing.T) {
	b := newBench(t)
	b.nic.change(func() { b.nic.full = true })
	const frames = 200
	f := out(shared4, peer4, protoUDP, udp(80, 9)).bytes()
	for range frames {
		b.send(1, f)
	}
	b.nic.change(func() { b.nic.full = false })
	require.Len(t, b.nic.awaitSent(frames), frames)
}

// TestStalledInstance: one that does not read loses frames, by name, and holds
// up nobody.
func TestStalledInstance(t *testing.T) {
	b := newBench(t)
	f := in(peer4, dedicated4, protoUDP, udp(5, 9, make([]byte, 1400)...)).bytes()
	for range 2000 {
		b.nic.arrive(f)
	}
	last := in(peer4, shared4, protoTCP, tcp(5, 80, header.TCPFlagSyn)).bytes()
	b.nic.arrive(last)
	require.Equal(t, last, b.receive(1))
	require.Eventually(t, func() bool { return b.Stats().Uplink.Drops["ring_full"] > 0 }, 30*time.Second, time.Millisecond)
}

// TestDetach: frames for an instance that left are dropped by name; its counts stay.
func TestDetach(t *testing.T) {
	b := newBench(t)
	b.send(3, out(dedicated4, peer4, protoUDP, udp(1, 2)).bytes())
	b.nic.awaitSent(1)
	require.NoError(t, b.Detach(3))
	require.ErrorIs(t, b.Detach(3), ErrPort)
	b.nic.arrive(in(peer4, dedicated4, protoUDP, udp(5, 9)).bytes())
	require.Eventually(t, func() bool { return b.Stats().Uplink.Drops["ring_gone"] == 1 }, 30*time.Second, time.Millisecond)
	require.EqualValues(t, 1, b.Stats().Gone.In)
}

// TestMark: a mark comes behind what had arrived before, also while more arrives
// all the time, and waits for room in the ring.
func TestMark(t *testing.T) {
	b := newBench(t)
	f := in(peer4, dedicated4, protoUDP, udp(5, 9)).bytes()
	mark := append(append(ourMAC[:], ourMAC[:]...), 0x88, 0xb5, 7)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.ErrorIs(t, b.Mark(ctx, 99, mark), ErrPort)
	for range 10 {
		const before = 500
		for range before {
			b.nic.arrive(f)
		}
		marked := make(chan error, 1)
		go func() { marked <- b.Mark(ctx, 3, mark) }()
		for n := 0; ; n++ {
			if n%2 == 0 {
				b.nic.arrive(f) // it never ends
			}
			if got := b.receive(3); len(got) == len(mark) {
				require.GreaterOrEqual(t, n, before)
				break
			}
		}
		require.NoError(t, <-marked)
		b.nic.change(func() { b.nic.arrived = nil })
		done := append(mark, 1)
		require.NoError(t, b.Mark(ctx, 3, done))
		for len(b.receive(3)) != len(done) {
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20_000 {
		b.nic.arrive(f)
	}
	require.Eventually(t, func() bool { return b.Stats().Uplink.Drops["ring_full"] > 0 }, 30*time.Second, time.Millisecond)
	require.ErrorIs(t, b.Mark(ended, 3, mark), context.Canceled)
	b.nic.change(func() { b.nic.arrived = nil })
	var reader sync.WaitGroup
	reader.Go(func() {
		for range 100 {
			b.receive(3)
		}
	})
	require.NoError(t, b.Mark(ctx, 3, mark))
	reader.Wait()
}
