package direct_test

import (
	"context"
	"encoding/binary"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"junction/direct"
)

const (
	nicName  = "nic0"
	peerName = "peer0"
	// etherTest is the "local experimental" EtherType (IEEE 802).
	etherTest = 0x88b5
)

// enter puts the test's goroutine into a network namespace of its own, which
// ends with the test: the thread is never unlocked.
func enter(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	require.NoError(t, err, "these tests need root")
	require.NoError(t, ns.Close()) // the thread holds it
}

// wire makes a veth from nicName, for the device, to peerName, for the test.
// IPv6 is off on both, so that the kernel sends nothing of its own.
func wire(t testing.TB, mtu, queues int) (mac, peer netlink.LinkAttrs) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nicName, mtu
	attrs.NumRxQueues, attrs.NumTxQueues = queues, queues
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: peerName, PeerMTU: uint32(mtu),
		PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues),
	}))
	return *up(t, nicName).Attrs(), *up(t, peerName).Attrs()
}

// up sets a NIC up, without IPv6 of the kernel's own if t is not nil, and
// returns it.
func up(t testing.TB, name string) netlink.Link {
	l, err := netlink.LinkByName(name)
	if t == nil {
		return l
	}
	t.Helper()
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetIP6AddrGenMode(l, 1 /* none */))
	require.NoError(t, netlink.LinkSetUp(l))
	l, err = netlink.LinkByName(name)
	require.NoError(t, err)
	return l
}

// allMulticast returns how many users have a NIC receive all multicast
// (IFLA_ALLMULTI); its flags only show whether an administrator has.
func allMulticast(t testing.TB, index int) uint32 {
	t.Helper()
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	request.AddData(info)
	messages, err := request.Execute(unix.NETLINK_ROUTE, 0)
	require.NoError(t, err)
	attrs, err := nl.ParseRouteAttr(messages[0][unix.SizeofIfInfomsg:])
	require.NoError(t, err)
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_ALLMULTI {
			return binary.NativeEndian.Uint32(a.Value)
		}
	}
	require.Fail(t, "the kernel does not tell IFLA_ALLMULTI")
	return 0
}

func persistentTAP(t testing.TB, name string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS, Queues: 1}
	require.NoError(t, netlink.LinkAdd(tap))
	for _, f := range tap.Fds {
		require.NoError(t, f.Close())
	}
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetIP6AddrGenMode(l, 1))
}

func open(t testing.TB, o direct.Options) direct.Device {
	t.Helper()
	d, err := direct.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// station is the far end of the wire: a packet socket.
type station struct {
	t     testing.TB
	fd    int
	index int
}

func newStation(t testing.TB, name string) *station {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	proto := binary.NativeEndian.Uint16([]byte{etherTest >> 8, etherTest & 0xff})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} { // a macvtap's queue counts as unsent
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, 64<<20))
	}
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Protocol: proto}))
	return &station{t, fd, l.Attrs().Index}
}

func (s *station) send(frame []byte) {
	_, err := unix.Write(s.fd, frame)
	require.NoError(s.t, err)
}

func (s *station) receive(buf []byte) []byte {
	n, err := unix.Read(s.fd, buf)
	require.NoError(s.t, err, "no frame came")
	return buf[:n]
}

// frame returns a test frame of n bytes whose content depends on n and seq.
func frame(dst, src net.HardwareAddr, n, seq int) []byte {
	f := make([]byte, n)
	copy(f, dst)
	copy(f[6:], src)
	binary.BigEndian.PutUint16(f[12:], etherTest)
	for i := 14; i < n; i++ {
		f[i] = byte(i*31 + n + seq*7)
	}
	return f
}

// collect receives until it has n frames of etherTest, copies them and
// releases. Others are ignored.
func collect(t testing.TB, q direct.Queue, n int) (frames [][]byte, headers [][]byte) {
	t.Helper()
	batch := make([][]byte, 64)
	for len(frames) < n {
		got, err := q.Receive(batch)
		require.NoError(t, err)
		for _, f := range batch[:got] {
			if binary.BigEndian.Uint16(f[direct.VnetHdrLen+12:]) == etherTest {
				headers = append(headers, append([]byte(nil), f[:direct.VnetHdrLen]...))
				frames = append(frames, append([]byte(nil), f[direct.VnetHdrLen:]...))
			}
		}
		q.Release()
		if got == 0 {
			require.NoError(t, q.Wait())
		}
	}
	return frames, headers
}

func transmit(t testing.TB, q direct.Queue, parts ...[]byte) {
	t.Helper()
	for {
		err := q.Transmit(nil, parts)
		if err == nil {
			return
		}
		require.ErrorIs(t, err, direct.ErrFull)
		if q.Flush() != nil {
			require.NoError(t, q.TransmitWait())
		}
	}
}
