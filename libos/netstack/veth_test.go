package netstack

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand"
	"net"
	"net/netip"
	"testing"
	"time"

	"junction/direct"
	"junction/internal/lab"
	modeswitch "junction/switch"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

// onVeth makes a stack on a driver's queues of a veth whose other end is the
// kernel's, and checks in the end that no packet went uncounted.
func onVeth(t testing.TB, driver string, o lab.Options, spin time.Duration) (*lab.Lab, *Network) {
	t.Helper()
	l := lab.ForTest(t, o)
	var dev direct.Device
	require.NoError(t, l.Server.Do(func() (err error) {
		dev, err = direct.Open(context.Background(), direct.Options{NIC: lab.ServerNIC, Driver: driver})
		return err
	}))
	off := dev.Offloads()
	ep, err := modeswitch.New(modeswitch.Options{Spin: spin, Backend: modeswitch.Backend{
		Queues: modeswitch.Queues(dev.Queues()), MAC: dev.MAC(), MTU: dev.MTU(),
		TXChecksum: off.TXChecksum, GSOMax: off.GSOMax, RXTrusted: off.RXTrusted, RXJoined: off.RXJoined,
	}})
	require.NoError(t, err)
	n, err := New(Options{Link: ep, Addresses: []netip.Prefix{lab.ServerAddr4, lab.ServerAddr6}})
	require.NoError(t, err)
	t.Cleanup(func() {
		n.Close()
		require.NoError(t, dev.Close())
		requireConserved(t, n)
		s, d := n.Stats(), dev.Stats()
		require.Equal(t, d.RxPackets, s.Link.RxPackets)
		t.Logf("%+v\nlink %+v\n%+v", d, *s.Link, s.TCP)
	})
	return l, n
}

// eachVeth runs f for both drivers and address families.
func eachVeth(t *testing.T, f func(t *testing.T, l *lab.Lab, n *Network, server netip.Addr)) {
	for _, driver := range []string{"afxdp", "tap"} {
		for _, p := range []netip.Prefix{lab.ServerAddr4, lab.ServerAddr6} {
			name := driver + "/ipv4"
			if p.Addr().Is6() {
				name = driver + "/ipv6"
			}
			t.Run(name, func(t *testing.T) {
				l, n := onVeth(t, driver, lab.Options{}, 0)
				f(t, l, n, p.Addr())
			})
		}
	}
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// Bulk TCP there and back between the stack and the kernel, which sends
// segments of up to 64 KiB with partial checksums into the veth.
//
// One way after the other: with both at once, an echo whose buffers are full
// can stop for good. Its window, rounded down by the window scale, then shrinks
// to nothing under data in flight, and netstack, which takes that data for
// unacceptable, drops the acknowledgements behind it too (rcv.go, acceptable).
func TestKernelTCPBulk(t *testing.T) {
	size := int64(32 << 20)
	if testing.Short() { // as under the race detector
		size = 8 << 20
	}
	eachVeth(t, func(t *testing.T, l *lab.Lab, n *Network, server netip.Addr) {
		ln, err := gonet.ListenTCP(n.Stack(), tcpip.FullAddress{Port: 7}, protocol(server))
		require.NoError(t, err)
		defer ln.Close()
		returned := make(chan error, 1)
		go func() { returned <- returnAll(ln) }()
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		c, err := l.Client.DialContext(ctx, "tcp", netip.AddrPortFrom(server, 7).String())
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(deadline)))
		sent, got := sha256.New(), sha256.New()
		begin := time.Now()
		_, err = io.Copy(io.MultiWriter(c, sent), io.LimitReader(rand.New(rand.NewSource(3)), size))
		require.NoError(t, err)
		require.NoError(t, c.(*net.TCPConn).CloseWrite())
		m, err := io.Copy(got, c)
		require.NoError(t, err)
		t.Logf("there and back in %v", time.Since(begin))
		require.Equal(t, size, m)
		require.NoError(t, <-returned)
		require.Equal(t, sent.Sum(nil), got.Sum(nil))
	})
}

// returnAll reads a connection to its end, then writes back what came.
func returnAll(ln net.Listener) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	all, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	_, err = c.Write(all)
	return err
}

func TestKernelUDP(t *testing.T) {
	eachVeth(t, func(t *testing.T, l *lab.Lab, n *Network, server netip.Addr) {
		local := tcpip.FullAddress{Port: 9}
		s, err := gonet.DialUDP(n.Stack(), &local, nil, protocol(server))
		require.NoError(t, err)
		defer s.Close()
		c, err := l.Client.DialContext(context.Background(), "udp", netip.AddrPortFrom(server, 9).String())
		require.NoError(t, err)
		defer c.Close()
		data, buf := make([]byte, 65507), make([]byte, 1<<16)
		rand.New(rand.NewSource(4)).Read(data)
		for size := 0; size <= len(data); size = size*5/4 + 1 {
			end := time.Now().Add(deadline)
			require.NoError(t, c.SetDeadline(end))
			require.NoError(t, s.SetDeadline(end))
			_, err := c.Write(data[:size])
			require.NoError(t, err)
			m, from, err := s.ReadFrom(buf)
			require.NoError(t, err)
			_, err = s.WriteTo(buf[:m], from)
			require.NoError(t, err)
			m, err = c.Read(buf)
			require.NoError(t, err)
			require.Equal(t, data[:size], buf[:m:m])
		}
	})
}
