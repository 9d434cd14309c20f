package lab

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		owner()
	}
	goleak.VerifyTestMain(m)
}

// echoOnce answers one connection with what it sends.
func echoOnce(ln net.Listener) {
	if c, err := ln.Accept(); err == nil {
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}
	_ = ln.Close()
}

// exchange sends text and returns what comes back.
func exchange(t *testing.T, l *Lab, addr, text string) string {
	t.Helper()
	c, err := l.Client.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, text)
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	return string(got)
}

func TestNamespacesAreConnected(t *testing.T) {
	l := ForTest(t, Options{})
	text := strings.Repeat("through the veth ", 10000)
	for _, p := range []netip.Prefix{ServerAddr4, ServerAddr6} {
		require.NoError(t, l.Server.AddAddr(ServerNIC, p))
		addr := netip.AddrPortFrom(p.Addr(), 7).String()
		ln, err := l.Server.Listen("tcp", addr)
		require.NoError(t, err)
		go echoOnce(ln)
		require.Equal(t, text, exchange(t, l, addr, text))
		require.NoError(t, l.Server.DelAddr(ServerNIC, p))
	}
}

func TestLoopbackIsUp(t *testing.T) {
	l := ForTest(t, Options{})
	for _, n := range l.Namespaces() {
		c, err := n.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		_, err = c.WriteTo([]byte("x"), c.LocalAddr())
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}

func TestServerHasNoAddress(t *testing.T) {
	l := ForTest(t, Options{})
	require.NoError(t, l.Server.Do(func() error {
		link, err := netlink.LinkByName(ServerNIC)
		require.NoError(t, err)
		addrs, err := netlink.AddrList(link, unix.AF_UNSPEC)
		require.Empty(t, addrs)
		return err
	}))
}

func TestClientAddressesAreUsableAtOnce(t *testing.T) {
	l := ForTest(t, Options{})
	require.NoError(t, l.Client.Do(func() error {
		link, err := netlink.LinkByName(ClientNIC)
		require.NoError(t, err)
		addrs, err := netlink.AddrList(link, unix.AF_UNSPEC)
		require.Len(t, addrs, 3)
		for _, a := range addrs {
			require.Zero(t, a.Flags&unix.IFA_F_TENTATIVE, "%v", a)
		}
		return err
	}))
}

func TestOptionsReachTheLinks(t *testing.T) {
	l := ForTest(t, Options{MTU: 9000, Queues: 2, TxQueueLen: 77, ClientAddrs: []netip.Prefix{}})
	for n, name := range map[*Namespace]string{l.Client: ClientNIC, l.Server: ServerNIC} {
		require.NoError(t, n.Do(func() error {
			link, err := netlink.LinkByName(name)
			require.NoError(t, err)
			a := link.Attrs()
			require.Equal(t, []int{9000, 2, 2, 77}, []int{a.MTU, a.NumRxQueues, a.NumTxQueues, a.TxQLen})
			require.NotZero(t, a.Flags&net.FlagUp)
			return nil
		}))
	}
}

func TestSmallMTUHasNoIPv6(t *testing.T) {
	l := ForTest(t, Options{MTU: 576})
	require.NoError(t, l.Server.AddAddr(ServerNIC, ServerAddr4))
	require.Error(t, l.Server.AddAddr(ServerNIC, ServerAddr6))
}

func TestOffloads(t *testing.T) {
	for _, off := range []bool{false, true} {
		l := ForTest(t, Options{NoOffloads: off})
		require.NoError(t, l.Client.Do(func() error {
			e, err := ethtool.NewEthtool()
			require.NoError(t, err)
			defer e.Close()
			f, err := e.Features(ClientNIC)
			require.Equal(t, !off, f["tx-tcp-segmentation"])
			require.Equal(t, !off, f["tx-checksum-ip-generic"])
			return err
		}))
	}
}

func TestBadOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"MTU 67":       {MTU: 67},
		"MTU 65536":    {MTU: 65536},
		"65 queues":    {Queues: 65},
		"-1 queues":    {Queues: -1},
		"TxQueueLen":   {TxQueueLen: -1},
		"not valid":    {ClientAddrs: []netip.Prefix{{}}},
		"at least 128": {MTU: 1279, ClientAddrs: []netip.Prefix{ClientAddr6}},
	} {
		_, err := New(o)
		require.ErrorContains(t, err, want)
	}
}

func TestBridgePassesFramesToTheTAP(t *testing.T) {
	l := ForTest(t, Options{Bridge: true, Queues: 2})
	var tap *netlink.Tuntap
	require.NoError(t, l.Server.Do(func() error { // attach as an instance would
		attrs := netlink.NewLinkAttrs()
		attrs.Name = ServerTAP
		tap = &netlink.Tuntap{
			LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Queues: 2, NonPersist: true,
			Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS,
		}
		return netlink.LinkAdd(tap)
	}))
	c, err := l.Client.ListenPacket("udp", "198.18.0.1:0")
	require.NoError(t, err)
	defer c.Close()
	_, err = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("198.18.0.2:9")))
	require.NoError(t, err)
	require.True(t, readsARP(t, tap), "no ARP request came through the bridge")
	for _, f := range tap.Fds {
		require.NoError(t, f.Close())
	}
}

// readsARP waits for an ARP request on any of the TAP's queues.
func readsARP(t *testing.T, tap *netlink.Tuntap) bool {
	var fds []unix.PollFd
	for _, f := range tap.Fds {
		fds = append(fds, unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLIN})
	}
	buf := make([]byte, 2048)
	for {
		n, err := unix.Poll(fds, 5000)
		require.NoError(t, err)
		if n == 0 {
			return false
		}
		for _, p := range fds {
			if p.Revents == 0 {
				continue
			}
			n, err := unix.Read(int(p.Fd), buf)
			require.NoError(t, err)
			if n >= 42 && buf[12] == 8 && buf[13] == 6 {
				return true
			}
		}
	}
}

func TestDoComesBack(t *testing.T) {
	l := ForTest(t, Options{})
	here, err := os.Readlink("/proc/thread-self/ns/net")
	require.NoError(t, err)
	func() {
		defer func() { require.Equal(t, "out", recover()) }()
		_ = l.Client.Do(func() error {
			return l.Server.Do(func() error {
				is, err := os.Readlink("/proc/thread-self/ns/net")
				require.NoError(t, err)
				require.Equal(t, l.Server.id, is)
				panic("out")
			})
		})
	}()
	back, err := os.Readlink("/proc/thread-self/ns/net")
	require.NoError(t, err)
	require.Equal(t, here, back)
}

func TestClosedLabRefuses(t *testing.T) {
	l, err := New(Options{})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Client.Do(func() error { return nil }), ErrClosed)
	require.ErrorIs(t, l.Client.AddAddr(ClientNIC, ClientAddr4), ErrClosed)
	require.ErrorIs(t, l.Client.Command(t.Context(), "true").Run(), ErrClosed)
}

func TestDialRefusesNames(t *testing.T) {
	l := ForTest(t, Options{})
	_, err := l.Client.DialContext(context.Background(), "tcp", "localhost:80")
	require.ErrorContains(t, err, "IP:PORT")
}

func TestLabsInParallel(t *testing.T) {
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			l, err := New(Options{})
			if err == nil {
				err = l.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestIPNetnsSeesTheNames(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("no ip program (iproute2) on this machine")
	}
	l := ForTest(t, Options{})
	out, err := exec.Command(ip, "netns", "exec", l.Server.Name(), "readlink", "/proc/self/ns/net").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, l.Server.id, strings.TrimSpace(string(out)))
	require.Equal(t, l.Server.Name(), filepath.Base(l.Server.Path()))
}
