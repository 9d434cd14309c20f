package netstack

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand"
	"net"
	"net/netip"
	"testing"
	"time"

	modeswitch "junction/switch"
	"junction/switch/queuetest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline bounds every exchange of a test; reaching it is a failure.
const deadline = time.Minute

// link says what the devices between the two stacks can do.
type link struct {
	name   string
	mtu    int
	gso    int
	queues int
	keep   func(n uint64, frame []byte) bool
}

var links = []link{
	{name: "plain", mtu: 1500, queues: 1},
	{name: "gso", mtu: 1500, gso: 1 << 16, queues: 1},
	{name: "jumbo-2-queues", mtu: 9000, queues: 2},
	{name: "gso-4-queues", mtu: 1500, gso: 1 << 16, queues: 4},
}

// pair makes two stacks that are connected: hosts 1 and 2 of 198.18.0.0/24 and
// fd00::/64.
func pair(t testing.TB, l link) (a, b *Network) {
	t.Helper()
	var qa, qb []*queuetest.Queue
	for range l.queues {
		x, y := queuetest.Pair(queuetest.Options{Keep: l.keep})
		qa, qb = append(qa, x), append(qb, y)
	}
	ends := [2]*Network{}
	for i, qs := range [][]*queuetest.Queue{qa, qb} {
		ep, err := modeswitch.New(modeswitch.Options{Backend: modeswitch.Backend{
			Queues: modeswitch.Queues(qs), MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)},
			MTU: l.mtu, TXChecksum: l.gso > 0, GSOMax: l.gso, RXJoined: l.gso > 0, RXTrusted: l.gso > 0,
		}})
		require.NoError(t, err)
		ends[i], err = New(Options{Link: ep, Addresses: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("198.18.0.%d/24", i+1)),
			netip.MustParsePrefix(fmt.Sprintf("fd00::%d/64", i+1)),
		}})
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		ends[0].Close()
		ends[1].Close()
		for _, q := range qa {
			q.Close()
		}
		requireConserved(t, ends[0])
		requireConserved(t, ends[1])
	})
	return ends[0], ends[1]
}

// requireConserved checks that every packet that went in came out or was
// counted as dropped.
func requireConserved(t testing.TB, n *Network) {
	t.Helper()
	s := n.opts.Link.Stats()
	rx, tx := s.RxDelivered, s.TxSent+s.TxWaiting
	for name, c := range s.Drops {
		if name[:3] == "rx_" {
			rx += c
		} else {
			tx += c
		}
	}
	require.Equal(t, s.RxPackets, rx, "received = delivered + dropped: %+v", s)
	require.Equal(t, s.TxPackets, tx, "offered = sent + waiting + dropped: %+v", s)
}

// family is one of the two address families, with the address of host 1.
type family struct {
	name  string
	proto tcpip.NetworkProtocolNumber
	host1 string
}

var families = []family{
	{"ipv4", ipv4.ProtocolNumber, "198.18.0.1"},
	{"ipv6", ipv6.ProtocolNumber, "fd00::1"},
}

func (f family) addr(port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: tcpip.AddrFromSlice(netip.MustParseAddr(f.host1).AsSlice()), Port: port}
}

// eachLink runs f for every kind of link and address family.
func eachLink(t *testing.T, f func(t *testing.T, l link, fam family)) {
	for _, l := range links {
		for _, fam := range families {
			t.Run(l.name+"/"+fam.name, func(t *testing.T) { f(t, l, fam) })
		}
	}
}

func TestTCPBulkBothWays(t *testing.T) {
	const size = 8 << 20
	eachLink(t, func(t *testing.T, l link, fam family) {
		a, b := pair(t, l)
		requireBulk(t, a, b, fam, size)
	})
}

// requireBulk sends size bytes from b to a and back, compared by hash.
func requireBulk(t *testing.T, a, b *Network, fam family, size int64) {
	t.Helper()
	ln, err := gonet.ListenTCP(a.Stack(), fam.addr(7), fam.proto)
	require.NoError(t, err)
	defer ln.Close()
	echoed := make(chan error, 1)
	go func() { echoed <- echoOne(ln) }()

	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, b.Stack(), fam.addr(7), fam.proto)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(deadline)))
	sent := sha256.New()
	wrote := make(chan error, 1)
	go func() { wrote <- writeRandom(c, sent, size) }()
	got := sha256.New()
	n, err := io.Copy(got, c)
	require.NoError(t, err)
	require.Equal(t, size, n)
	require.NoError(t, <-wrote)
	require.NoError(t, <-echoed)
	require.Equal(t, sent.Sum(nil), got.Sum(nil))
}

func echoOne(ln net.Listener) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	_, err = io.Copy(c, c)
	return err
}

func writeRandom(c *gonet.TCPConn, sum hash.Hash, size int64) error {
	r := io.LimitReader(rand.New(rand.NewSource(1)), size)
	if _, err := io.Copy(io.MultiWriter(c, sum), r); err != nil {
		return err
	}
	return c.CloseWrite()
}

func TestUDPEverySize(t *testing.T) {
	eachLink(t, func(t *testing.T, l link, fam family) {
		a, b := pair(t, l)
		local := fam.addr(9)
		server, err := gonet.DialUDP(a.Stack(), &local, nil, fam.proto)
		require.NoError(t, err)
		defer server.Close()
		client, err := gonet.DialUDP(b.Stack(), nil, &local, fam.proto)
		require.NoError(t, err)
		defer client.Close()
		sizes := []int{0, 1, 2, 7, 8, 17, 18, 1452, 1471, 1472, 1473, 1500, 8972, 8973, 65507}
		for n := 3; n <= 65507; n += 997 {
			sizes = append(sizes, n)
		}
		data := make([]byte, 65507)
		rand.New(rand.NewSource(2)).Read(data)
		buf := make([]byte, 1<<16)
		for _, n := range sizes {
			end := time.Now().Add(deadline)
			require.NoError(t, client.SetDeadline(end))
			require.NoError(t, server.SetDeadline(end))
			_, err := client.Write(data[:n])
			require.NoError(t, err, "size %d", n)
			m, from, err := server.ReadFrom(buf)
			require.NoError(t, err, "size %d", n)
			_, err = server.WriteTo(buf[:m], from)
			require.NoError(t, err, "size %d", n)
			m, err = client.Read(buf)
			require.NoError(t, err, "size %d", n)
			require.Equal(t, data[:n], buf[:m:m], "size %d", n)
		}
	})
}
