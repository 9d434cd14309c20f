package modeswitch

import (
	"net"
	"strings"
	"testing"
	"time"

	"junction/switch/queuetest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const nicID tcpip.NICID = 1

var (
	ourMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	theirMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	ourIP    = tcpip.AddrFrom4([4]byte{198, 18, 0, 1})
	theirIP  = tcpip.AddrFrom4([4]byte{198, 18, 0, 2})
)

// host is a stack on an endpoint whose wire the test holds.
type host struct {
	stack *stack.Stack
	ep    *Endpoint
	wire  *queuetest.Queue
}

// backend returns a back end of one queue and the other end of that queue.
func backend(trusted bool) (Backend, *queuetest.Queue) {
	q, wire := queuetest.Pair(queuetest.Options{Slots: 1024})
	return Backend{Queues: []Queue{q}, MAC: ourMAC, MTU: 1500, RXTrusted: trusted}, wire
}

func newHost(t testing.TB, trusted bool) *host {
	t.Helper()
	b, wire := backend(trusted)
	ep, err := New(Options{Backend: b})
	require.NoError(t, err)
	s := attach(t, ep, ourIP)
	t.Cleanup(wire.Close)
	require.Nil(t, s.AddStaticNeighbor(nicID, ipv4.ProtocolNumber, theirIP, tcpip.LinkAddress(theirMAC)))
	return &host{s, ep, wire}
}

// attach makes a stack with an address whose NIC is an endpoint, and starts it.
func attach(t testing.TB, ep *Endpoint, ip tcpip.Address) *stack.Stack {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	t.Cleanup(s.Destroy)
	require.Nil(t, s.CreateNICWithOptions(nicID, ep, stack.NICOptions{QDisc: ep.QDisc()}))
	addr := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: ip, PrefixLen: 24}}
	require.Nil(t, s.AddProtocolAddress(nicID, addr, stack.AddressProperties{}))
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}})
	require.NoError(t, ep.Start(s, nicID))
	return s
}

// settle waits until the endpoint has taken n frames from the wire.
func (h *host) settle(t testing.TB, n uint64) Stats {
	t.Helper()
	require.Eventually(t, func() bool { return h.ep.Stats().RxPackets >= n }, time.Minute, 100*time.Microsecond)
	s := h.ep.Stats()
	requireConserved(t, s)
	return s
}

func requireConserved(t require.TestingT, s Stats) {
	rx, tx := s.RxDelivered+s.RxHeld, s.TxSent+s.TxWaiting
	for name, n := range s.Drops {
		if strings.HasPrefix(name, "rx_") {
			rx += n
		} else {
			tx += n
		}
	}
	require.Equal(t, s.RxPackets, rx, "received = delivered + dropped: %+v", s)
	require.Equal(t, s.TxPackets, tx, "offered = sent + waiting + dropped: %+v", s)
}

func TestNewRefuses(t *testing.T) {
	q, _ := queuetest.Pair(queuetest.Options{})
	good := Backend{Queues: []Queue{q}, MAC: ourMAC, MTU: 1500}
	for _, c := range []struct {
		name string
		edit func(*Options)
		want string
	}{
		{"no queue", func(o *Options) { o.Backend.Queues = nil }, "no queues"},
		{"nil queue", func(o *Options) { o.Backend.Queues = []Queue{nil} }, "queue 0 is nil"},
		{"no MAC", func(o *Options) { o.Backend.MAC = nil }, "not a unicast Ethernet address"},
		{"multicast MAC", func(o *Options) { o.Backend.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 0} }, "not a unicast"},
		{"MTU 0", func(o *Options) { o.Backend.MTU = 0 }, "MTU 0 is not between 68 and 65535"},
		{"MTU large", func(o *Options) { o.Backend.MTU = 65536 }, "MTU 65536"},
		{"GSO", func(o *Options) { o.Backend.GSOMax = 65537 }, "GSO size 65537"},
		{"batch", func(o *Options) { o.Batch = -1 }, "must not be negative"},
		{"spin", func(o *Options) { o.Spin = -1 }, "must not be negative"},
	} {
		o := Options{Backend: good}
		c.edit(&o)
		_, err := New(o)
		require.ErrorContains(t, err, c.want, c.name)
	}
}

func TestStart(t *testing.T) {
	b, wire := backend(false)
	defer wire.Close()
	ep, err := New(Options{Backend: b})
	require.NoError(t, err)
	s := stack.New(stack.Options{NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol}})
	defer s.Destroy()
	require.ErrorIs(t, ep.Start(s, nicID), ErrNotAttached)
	require.Nil(t, s.CreateNIC(nicID, ep))
	require.True(t, ep.IsAttached())
	require.ErrorContains(t, ep.Start(s, nicID+1), "NIC 2 does not exist")
	require.Nil(t, s.RemoveNIC(nicID))
	require.False(t, ep.IsAttached())
	require.ErrorIs(t, ep.Start(s, nicID), ErrNotAttached)

	h := newHost(t, false)
	require.ErrorIs(t, h.ep.Start(h.stack, nicID), ErrStarted)
}

func TestReceiverEndsWithItsQueue(t *testing.T) {
	h := newHost(t, false)
	h.wire.Close()
	h.ep.first.workers.Wait()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 14})
	defer pkt.DecRef()
	var list stack.PacketBufferList
	list.PushBack(pkt)
	n, err := h.ep.WritePackets(list)
	require.Zero(t, n)
	require.IsType(t, &tcpip.ErrClosedForSend{}, err)
	require.Equal(t, uint64(1), h.ep.Stats().Drops["tx_closed"])
}

func TestSetters(t *testing.T) {
	h := newHost(t, false)
	h.ep.SetMTU(1400)
	h.ep.SetMTU(1501)
	h.ep.SetMTU(1279)
	require.Equal(t, uint32(1400), h.ep.MTU())
	require.Equal(t, tcpip.LinkAddress(ourMAC), h.ep.LinkAddress())
	h.ep.SetLinkAddress(tcpip.LinkAddress(theirMAC))
	require.Equal(t, tcpip.LinkAddress(theirMAC), h.ep.LinkAddress())
	require.Equal(t, header.ARPHardwareEther, h.ep.ARPHardwareType())
	require.Equal(t, stack.GVisorGSOSupported, h.ep.SupportedGSO())
}
