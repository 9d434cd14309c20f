package netstack

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// fakePorts owns ports as a monitor would: of some others have taken them.
type fakePorts struct {
	mu     sync.Mutex
	others map[string]bool   // udp?/port
	held   map[uint64]string // by holder
	last   uint64
	next   uint16
	dead   bool
}

func newFakePorts() *fakePorts {
	return &fakePorts{others: make(map[string]bool), held: make(map[uint64]string), next: 40000}
}

func nameOf(udp bool, port uint16) string { return fmt.Sprint(udp, "/", port) }

func (f *fakePorts) Acquire(r PortRequest) (uint64, uint16, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return 0, 0, fmt.Errorf("the monitor is gone")
	}
	if r.Port == 0 {
		f.next++
		r.Port = f.next
	}
	if f.others[nameOf(r.UDP, r.Port)] {
		return 0, 0, fmt.Errorf("another's: %w", unix.EADDRINUSE)
	}
	f.last++
	f.held[f.last] = fmt.Sprint(nameOf(r.UDP, r.Port), " ", r.Addr, " ", r.V6Only)
	return f.last, r.Port, nil
}

func (f *fakePorts) Release(holder uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.held[holder]; !ok {
		return fmt.Errorf("holder %d is unknown", holder)
	}
	delete(f.held, holder)
	return nil
}

func (f *fakePorts) all() (held []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.held {
		held = append(held, h)
	}
	return held
}

// newOwned makes a network whose ports are f's, with nothing but loopback.
func newOwned(t *testing.T, f *fakePorts) *Network {
	t.Helper()
	n, err := New(Options{Ports: f})
	require.NoError(t, err)
	t.Cleanup(n.Close)
	return n
}

func (n *Network) socket(t *testing.T, proto tcpip.TransportProtocolNumber, net tcpip.NetworkProtocolNumber) (tcpip.Endpoint, *waiter.Queue) {
	t.Helper()
	wq := new(waiter.Queue)
	ep, err := n.Stack().NewEndpoint(proto, net, wq)
	require.Nil(t, err)
	return ep, wq
}

func at(port uint16) tcpip.FullAddress { return tcpip.FullAddress{Port: port} }

func onLoopback(port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: tcpip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port}
}

func TestOwnedBind(t *testing.T) {
	f := newFakePorts()
	n := newOwned(t, f)
	f.others[nameOf(false, 80)] = true
	a, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.IsType(t, &tcpip.ErrPortInUse{}, a.Bind(at(80)), "another instance's")
	require.Nil(t, a.Bind(at(81)))
	require.Equal(t, []string{"false/81 0.0.0.0 false"}, f.all())
	require.IsType(t, &tcpip.ErrAlreadyBound{}, a.Bind(at(82)))

	b, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.IsType(t, &tcpip.ErrPortInUse{}, b.Bind(at(81)), "a socket of the instance")
	require.Nil(t, b.Bind(onLoopback(80)), "nobody else's address")
	require.Len(t, f.all(), 1)
	b.Close()

	c, _ := n.socket(t, udp.ProtocolNumber, ipv6.ProtocolNumber)
	require.Nil(t, c.Bind(at(0)))
	got, err := c.GetLocalAddress()
	require.Nil(t, err)
	require.EqualValues(t, 40001, got.Port)
	require.Contains(t, f.all(), "true/40001 :: false")
	c.Close()
	a.Close()
	require.Empty(t, f.all(), "freed with the sockets")
	d, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.Nil(t, d.Bind(at(81)))
	d.Close()
	d.Close()
	require.Empty(t, f.all())
}

// TestSharedWithinInstance: a port that sockets share is asked for once and
// given back with the last of them.
func TestSharedWithinInstance(t *testing.T) {
	f := newFakePorts()
	n := newOwned(t, f)
	var eps []tcpip.Endpoint
	for range 3 {
		ep, _ := n.socket(t, udp.ProtocolNumber, ipv4.ProtocolNumber)
		ep.SocketOptions().SetReusePort(true)
		require.Nil(t, ep.Bind(at(53)))
		eps = append(eps, ep)
	}
	require.Len(t, f.all(), 1)
	for _, ep := range eps {
		require.Len(t, f.all(), 1)
		ep.Close()
	}
	require.Empty(t, f.all())
}

func TestImplicitBind(t *testing.T) {
	f := newFakePorts()
	n := newOwned(t, f)
	out := tcpip.FullAddress{Addr: tcpip.AddrFrom4([4]byte{127, 0, 0, 9}), Port: 9}
	u, _ := n.socket(t, udp.ProtocolNumber, ipv4.ProtocolNumber)
	require.Nil(t, u.Connect(out))
	require.Len(t, f.all(), 1, "connect of a datagram socket")
	s, _ := n.socket(t, udp.ProtocolNumber, ipv4.ProtocolNumber)
	_, _ = s.Write(&bytesPayload{}, tcpip.WriteOptions{To: &out})
	require.Len(t, f.all(), 2, "sendto")
	l, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.Nil(t, l.Listen(1))
	require.Len(t, f.all(), 3, "listen")
	c, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.IsType(t, &tcpip.ErrConnectStarted{}, c.Connect(out))
	require.Len(t, f.all(), 3, "TCP to loopback")
	for _, ep := range []tcpip.Endpoint{u, s, l, c} {
		ep.Close()
	}
	require.Empty(t, f.all())
}

type bytesPayload struct{}

func (*bytesPayload) Read([]byte) (int, error) { return 0, nil }
func (*bytesPayload) Len() int                 { return 0 }

// TestPortOutlivesListener: accepted connections keep it, and TIME-WAIT does.
func TestPortOutlivesListener(t *testing.T) {
	f := newFakePorts()
	n := newOwned(t, f)
	wait := tcpip.TCPTimeWaitTimeoutOption(300 * time.Millisecond)
	require.Nil(t, n.Stack().SetTransportProtocolOption(tcp.ProtocolNumber, &wait))
	l, lq := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.Nil(t, l.Bind(at(80)))
	require.Nil(t, l.Listen(8))
	c, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	lq.EventRegister(&entry)
	require.IsType(t, &tcpip.ErrConnectStarted{}, c.Connect(onLoopback(80)))
	<-readable
	accepted, _, err := l.Accept(nil)
	require.Nil(t, err)
	l.Close()
	require.Len(t, f.all(), 1, "a connection has the port")
	b, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.IsType(t, &tcpip.ErrPortInUse{}, b.Bind(at(80)))
	require.Len(t, f.all(), 1)
	accepted.Close() // first: it gets TIME-WAIT
	c.Close()
	closed := time.Now()
	require.Eventually(t, func() bool { return len(f.all()) == 0 }, 30*time.Second, time.Millisecond)
	require.Greater(t, time.Since(closed), 200*time.Millisecond, "TIME-WAIT keeps the port")
	require.Nil(t, b.Bind(at(80)))
	b.Close()
}

func TestPortErrors(t *testing.T) {
	for errno, want := range map[unix.Errno]tcpip.Error{
		unix.EADDRINUSE: &tcpip.ErrPortInUse{}, unix.EADDRNOTAVAIL: &tcpip.ErrBadLocalAddress{},
		unix.EAGAIN: &tcpip.ErrNoPortAvailable{}, unix.EACCES: &tcpip.ErrBroadcastDisabled{}, unix.ENOBUFS: &tcpip.ErrNoBufferSpace{},
	} {
		require.IsType(t, want, refusal(fmt.Errorf("no: %w", errno), WhySend))
	}
	require.IsType(t, &tcpip.ErrBadLocalAddress{}, refusal(unix.EAGAIN, WhyConnect))
	f := newFakePorts()
	n := newOwned(t, f)
	f.dead = true
	ep, _ := n.socket(t, tcp.ProtocolNumber, ipv4.ProtocolNumber)
	require.IsType(t, &tcpip.ErrNoBufferSpace{}, ep.Bind(at(80)))
	ep.Close()
}

// TestHoldReservation: what is looked for in the stack's table is what was bound.
func TestHoldReservation(t *testing.T) {
	h := hold{key: PortRequest{UDP: true, Addr: netip.IPv6Unspecified(), Port: 5, V6Only: true}}
	require.Equal(t, []tcpip.NetworkProtocolNumber{ipv6.ProtocolNumber}, h.reservation().Networks)
	h.key.V6Only = false
	require.Len(t, h.reservation().Networks, 2)
	h.key.Addr = netip.MustParseAddr("198.18.0.2")
	require.Equal(t, []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber}, h.reservation().Networks)
	require.Equal(t, udp.ProtocolNumber, h.reservation().Transport)
}
