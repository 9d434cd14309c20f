package direct_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct"
)

var (
	peer4, ours4 = netip.MustParseAddrPort("198.18.0.2:7000"), netip.MustParseAddrPort("198.18.0.1:8000")
	peer6, ours6 = netip.MustParseAddrPort("[fd00::2]:7000"), netip.MustParseAddrPort("[fd00::1]:8000")
)

// kernelPeer gives the peer addresses and the MAC of the device.
func kernelPeer(t *testing.T, mac net.HardwareAddr) {
	t.Helper()
	l := up(t, peerName)
	defer awaitRoute(t, peer6.Addr())()
	for _, p := range []struct {
		addr  string
		other netip.Addr
	}{{"198.18.0.2/24", ours4.Addr()}, {"fd00::2/64", ours6.Addr()}} {
		addr, err := netlink.ParseAddr(p.addr)
		require.NoError(t, err)
		addr.Flags = unix.IFA_F_NODAD
		require.NoError(t, netlink.AddrAdd(l, addr))
		require.NoError(t, netlink.NeighAdd(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: p.other.AsSlice(), HardwareAddr: mac}))
	}
}

// awaitRoute returns a function that waits until the kernel has the local route
// of its address addr, which it makes in the background.
func awaitRoute(t *testing.T, addr netip.Addr) func() {
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	require.NoError(t, netlink.RouteSubscribe(updates, done))
	return func() {
		for u := range updates {
			if u.Type == unix.RTM_NEWROUTE && u.Dst != nil && u.Dst.IP.Equal(addr.AsSlice()) {
				break
			}
		}
		close(done)
		for range updates { // until its goroutine has ended
		}
	}
}

// udp returns a socket of the peer's kernel, connected to the device.
func udp(t *testing.T, local, remote netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(remote))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// next receives until it has a frame of TCP or UDP from or to our ports.
func next(t *testing.T, q direct.Queue) (hdr, frame []byte) {
	t.Helper()
	batch := make([][]byte, 1)
	for {
		n, err := q.Receive(batch)
		require.NoError(t, err)
		if n == 0 {
			require.NoError(t, q.Wait())
			continue
		}
		all := bytes.Clone(batch[0])
		q.Release()
		hdr, frame = all[:direct.VnetHdrLen], all[direct.VnetHdrLen:]
		if at := bytes.Index(frame, []byte{7000 >> 8, 7000 & 0xff, 8000 >> 8, 8000 & 0xff}); at == 34 || at == 54 {
			return hdr, frame
		}
	}
}

// TestReceivePartialChecksum: what the peer's kernel sends is marked as having
// a partial checksum, which completes to the right one.
func TestReceivePartialChecksum(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		require.True(t, d.Offloads().RXTrusted)
		kernelPeer(t, mac)
		for _, ends := range [][2]netip.AddrPort{{peer4, ours4}, {peer6, ours6}} {
			c := udp(t, ends[0], ends[1])
			for _, n := range []int{1, 2, 99, 1000, 1400} {
				payload := bytes.Repeat([]byte{byte(n)}, n)
				_, err := c.Write(payload)
				require.NoError(t, err)
				hdr, f := next(t, d.Queues()[0])
				want, start, offset := segment{mac, peer, ends[1], ends[0], 17, payload, true, 0}.build()
				require.Equal(t, byte(1), hdr[0]&1, "NEEDS_CSUM")
				require.Equal(t, start, int(binary.LittleEndian.Uint16(hdr[6:])))
				require.Equal(t, offset, int(binary.LittleEndian.Uint16(hdr[8:])))
				require.Equal(t, want[start:], f[start:])
			}
		}
	})
}

// TestReceiveCompleteChecksum: a checksum that is complete, right or wrong, is
// left to the stack to verify.
func TestReceiveCompleteChecksum(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		q := open(t, direct.Options{NIC: nicName, Driver: driver}).Queues()[0]
		s := newStation(t, peerName)
		for _, corruption := range []uint16{0, 1, 0x100} {
			for _, proto := range []byte{6, 17} {
				out, _, _ := segment{mac, peer, ours4, peer4, proto, []byte("payload"), false, corruption}.build()
				s.send(out)
				hdr, f := next(t, q)
				require.Equal(t, out, f)
				require.Equal(t, make([]byte, direct.VnetHdrLen), hdr)
			}
		}
	})
}

// TestTransmitPartialChecksum: the peer's kernel takes our partial checksums
// when we say that they are, and refuses them otherwise.
func TestTransmitPartialChecksum(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		require.True(t, d.Offloads().TXChecksum)
		kernelPeer(t, mac)
		q := d.Queues()[0]
		for _, ends := range [][2]netip.AddrPort{{peer4, ours4}, {peer6, ours6}} {
			c := udp(t, ends[0], ends[1])
			bad, _, _ := segment{peer, mac, ends[0], ends[1], 17, []byte("refused"), true, 0}.build()
			transmit(t, q, bad)
			for _, n := range []int{1, 2, 701, 1400} {
				f, start, offset := segment{peer, mac, ends[0], ends[1], 17, bytes.Repeat([]byte{7}, n), true, 0}.build()
				hdr := vnetHdr(1, 0, 0, 0, start, offset)
				require.NoError(t, q.Transmit(hdr, [][]byte{f[:start], f[start:]}))
				require.NoError(t, q.Flush())
				buf := make([]byte, 2048)
				require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
				got, err := c.Read(buf)
				require.NoError(t, err, "%+v", d.Stats())
				require.Equal(t, bytes.Repeat([]byte{7}, n), buf[:got])
			}
		}
	})
}

func vnetHdr(flags, gso byte, hdrLen, gsoSize, start, offset int) *[direct.VnetHdrLen]byte {
	h := [direct.VnetHdrLen]byte{flags, gso}
	for i, v := range []int{hdrLen, gsoSize, start, offset} {
		binary.LittleEndian.PutUint16(h[2+2*i:], uint16(v))
	}
	return &h
}

// TestHostileHeaders: no header makes Transmit do anything but refuse or send.
func TestHostileHeaders(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		q := d.Queues()[0]
		f := frame(peer, mac, 200, 1)
		for _, h := range []*[direct.VnetHdrLen]byte{
			vnetHdr(1, 0, 0, 0, 13, 0), vnetHdr(1, 0, 0, 0, 199, 0), vnetHdr(1, 0, 0, 0, 65535, 65535),
			vnetHdr(1, 0, 0, 0, 34, 165), vnetHdr(0, 1, 54, 1000, 0, 0), vnetHdr(1, 1, 54, 0, 34, 16),
			vnetHdr(1, 3, 54, 1000, 34, 6), vnetHdr(1, 5, 54, 1000, 34, 6), vnetHdr(1, 4, 201, 1000, 34, 16), vnetHdr(0, 0xff, 0, 0, 0, 0),
		} {
			require.ErrorIs(t, q.Transmit(h, [][]byte{f}), direct.ErrBadHeader, "%v", h)
		}
		require.Equal(t, uint64(10), q.Stats().Refused["tx_bad_header"])
		random := rand.New(rand.NewPCG(1, 2))
		sent := uint64(0)
		for range 5000 {
			var h [direct.VnetHdrLen]byte
			for i := range h {
				bits := random.Uint32()
				h[i] = byte(bits) & byte(bits>>8) // small numbers more often
			}
			err := q.Transmit(&h, [][]byte{f})
			if err == nil {
				sent++
				err = q.Flush()
			}
			if err != nil {
				require.ErrorIs(t, err, direct.ErrBadHeader)
			}
		}
		stats := d.Stats()
		require.Equal(t, sent, stats.TxPackets+stats.Drops["tx_device"]+stats.Drops["tx_invalid_desc"])
		echo(t, q, newStation(t, peerName), mac, peer, 100)
	})
}

// vnetStation is a packet socket of the peer with a virtio_net_hdr in front of
// each frame, for segmentation by the device.
func vnetStation(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: up(t, peerName).Attrs().Index, Protocol: 0x0008 /* IPv4 */}))
	return fd
}

// TestReceiveSegments: the peer sends one TCP packet of 40 KB for segmentation.
// A TAP gets it whole, AF_XDP as segments, with checksums that are right or
// marked as partial. Either way the bytes are those sent.
func TestReceiveSegments(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		eachDriver(t, mtu, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
			d := open(t, direct.Options{NIC: nicName, Driver: driver})
			payload := random(40000)
			out, start, offset := segment{mac, peer, ours4, peer4, 6, payload, true, 0}.build()
			hdr := vnetHdr(1, 1, start+20, mtu-40, start, offset)
			_, err := unix.Write(vnetStation(t), append(hdr[:], out...))
			require.NoError(t, err)
			var got []byte
			for n := 0; len(got) < len(payload); n++ {
				h, f := next(t, d.Queues()[0])
				if h[0]&1 != 0 {
					complete(f, h)
				}
				l4 := f[34:]
				pseudo := append(bytes.Clone(f[26:34]), 0, 6, byte(len(l4)>>8), byte(len(l4)))
				require.Equal(t, uint16(0xffff), sum(append(pseudo, l4...)), "checksum of segment %d", n)
				if driver == "tap" {
					require.Equal(t, byte(1), h[1], "TCPv4 segmentation")
					require.Equal(t, mtu-40, int(binary.LittleEndian.Uint16(h[4:])))
				}
				require.Equal(t, uint32(len(got)), binary.BigEndian.Uint32(l4[4:8]), "sequence number")
				got = append(got, l4[20:]...)
			}
			require.Equal(t, payload, got)
			requireNoDrops(t, d.Stats())
		})
	}
}

// TestReceiveUDPSegments: datagrams that the peer's program sends in one piece
// for segmentation by the device (UDP_SEGMENT, udp(7)) arrive as single ones:
// no header could say where one ends.
func TestReceiveUDPSegments(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		eachDriver(t, mtu, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
			d := open(t, direct.Options{NIC: nicName, Driver: driver})
			kernelPeer(t, mac)
			payload := random(5500)
			sendUDPSegments(t, payload, 1000)
			var got []byte
			for n := 0; len(got) < len(payload); n++ {
				h, f := next(t, d.Queues()[0])
				require.Zero(t, h[1], "no segmentation left to do")
				require.Len(t, f, 42+min(1000, len(payload)-len(got)), "datagram %d", n)
				got = append(got, f[42:]...)
			}
			require.Equal(t, payload, got)
		})
	}
}

func sendUDPSegments(t *testing.T, payload []byte, size int) {
	c := udp(t, peer4, ours4)
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		require.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size))
	}))
	_, err = c.Write(payload)
	require.NoError(t, err)
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
