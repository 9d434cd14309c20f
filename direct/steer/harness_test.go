package steer

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/steer/scope"
	"junction/portmap/table"
)

const (
	nicName  = "nic0"
	peerName = "peer0"
)

// What the tests' table has: instance 7 and 8 dedicated addresses and ports of
// the shared ones.
var (
	shared4, shared6 = netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("fd00::2")
	own4, own6       = netip.MustParseAddr("198.18.0.7"), netip.MustParseAddr("fd00::7")
	others4          = netip.MustParseAddr("198.18.0.8")
	client4, client6 = netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("fd00::1")
)

const (
	owner, other        = 7, 8
	ownPort, othersPort = 80, 81
	ownMore, clientPrt  = 82, 40000 // ownMore is in no test's list of ports
)

// bench is an uplink with its wire, in a network namespace that ends with the
// test.
type bench struct {
	*Uplink
	t         testing.TB
	writer    *table.Writer
	maps      *table.Maps
	mac, peer net.HardwareAddr
	wire      int // packet socket at the far end
	server    direct.Device
}

func newBench(t testing.TB, vfs int) *bench {
	t.Helper()
	return newBenchWith(t, Options{VFs: vfs})
}

func newBenchWith(t testing.TB, o Options) *bench {
	t.Helper()
	runtime.LockOSThread() // for ever: the thread ends with the test, and the namespace with it
	ns, err := netns.New()
	require.NoError(t, err, "these tests need root")
	require.NoError(t, ns.Close())
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = nicName, 1, 1
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNumTxQueues: 1, PeerNumRxQueues: 1}))
	b := &bench{t: t}
	b.mac, _ = up(t, nicName)
	var index int
	b.peer, index = up(t, peerName)
	b.wire = packetSocket(t, index)
	b.fillTable()
	o.NIC, o.Tables = nicName, b.maps
	b.Uplink, err = Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Uplink.Close() })
	b.server = b.adopt(b.Export())
	return b
}

func up(t testing.TB, name string) (net.HardwareAddr, int) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetIP6AddrGenMode(l, 1 /* none */))
	require.NoError(t, netlink.LinkSetUp(l))
	return l.Attrs().HardwareAddr, l.Attrs().Index
}

// packetSocket receives what comes out of a NIC and sends into it.
func packetSocket(t testing.TB, index int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL})
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: all}))
	return fd
}

func (b *bench) fillTable() {
	g := table.Geometry{Shared: 2, Slots: 64, HashSeed: 0x1234567890abcdef}
	var err error
	b.maps, err = table.CreateMaps(g)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = b.maps.Close() })
	b.writer, err = table.NewWriter(g, b.maps)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = b.writer.Close() })
	used := map[uint32]bool{}
	address := func(a netip.Addr, w table.Word) {
		for i := range uint32(table.ProbeWindow) {
			if slot := g.Probe(table.KeyOf(a), i); !used[slot] {
				used[slot] = true
				b.writer.Apply([]table.Change{{Slot: true, Index: slot, Key: table.KeyOf(a), Word: w}})
				return
			}
		}
		require.Fail(b.t, "no slot")
	}
	address(shared4, table.NewWord(table.Shared, table.Server, 0, 1))
	address(shared6, table.NewWord(table.Shared, table.Server, 1, 1))
	address(own4, table.NewWord(table.Dedicated, table.Server, owner, 1))
	address(own6, table.NewWord(table.Dedicated, table.Server, owner, 1))
	address(others4, table.NewWord(table.Dedicated, table.Direct, other, 1))
	for i := range uint32(2) {
		for proto := range table.Protos {
			b.port(i, proto, ownPort, table.Server, owner)
			b.port(i, proto, othersPort, table.Server, other)
			b.port(i, proto, ownMore, table.Server, owner)
		}
	}
}

func (b *bench) port(shared uint32, proto table.Proto, port uint16, mode table.Mode, owner uint32) {
	b.writer.Apply([]table.Change{{Index: table.PortIndex(shared, proto, port), Word: table.NewWord(table.Port, mode, owner, 1)}})
}

func (b *bench) adopt(e direct.Export, files []int) direct.Device {
	b.t.Helper()
	d, err := direct.Adopt(e, duplicates(b.t, files), direct.AdoptOptions{})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = d.Close() })
	return d
}

func duplicates(t testing.TB, files []int) (dups []int) {
	t.Helper()
	for _, f := range files {
		fd, err := unix.FcntlInt(uintptr(f), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		dups = append(dups, fd)
	}
	return dups
}

// newVF makes a VF and is its instance.
func (b *bench) newVF(owner uint32) (*VF, direct.Device) {
	b.t.Helper()
	return b.newVFFor(owner, nil)
}

// newVFFor makes one for some ports.
func (b *bench) newVFFor(owner uint32, ports *scope.Ports) (*VF, direct.Device) {
	b.t.Helper()
	v, err := b.NewVF(context.Background(), owner, ports)
	require.NoError(b.t, err)
	return v, b.adopt(v.Export())
}

func (b *bench) send(frame []byte) {
	b.t.Helper()
	_, err := unix.Write(b.wire, frame)
	require.NoError(b.t, err)
}

// arrival is a frame that came, with its virtio_net_hdr.
type arrival struct {
	from  int // which device
	hdr   []byte
	frame []byte
}

// await returns the next frame of any device that match takes; others, which
// the kernels of the wire's ends send by themselves, are ignored. ok is false if
// none comes.
func await(t testing.TB, wait time.Duration, match func([]byte) bool, devices ...direct.Device) (a arrival, ok bool) {
	t.Helper()
	batch := make([][]byte, 1)
	for end := time.Now().Add(wait); ; {
		idle := true
		for i, d := range devices {
			q := d.Queues()[0]
			n, err := q.Receive(batch)
			require.NoError(t, err)
			if n == 0 {
				continue
			}
			idle = false
			f := append([]byte(nil), batch[0]...)
			q.Release()
			if match(f[direct.VnetHdrLen:]) {
				return arrival{i, f[:direct.VnetHdrLen], f[direct.VnetHdrLen:]}, true
			}
		}
		if idle && time.Now().After(end) {
			return arrival{}, false
		}
		if idle {
			time.Sleep(50 * time.Microsecond) // several devices, no event for all
		}
	}
}

// fromWire returns the next frame at the far end that match takes.
func (b *bench) fromWire(wait time.Duration, match func([]byte) bool) ([]byte, bool) {
	b.t.Helper()
	buf := make([]byte, 1<<17)
	for end := time.Now().Add(wait); ; {
		poll := []unix.PollFd{{Fd: int32(b.wire), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, max(0, int(time.Until(end).Milliseconds())))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		require.NoError(b.t, err)
		if n == 0 {
			return nil, false
		}
		n, err = unix.Read(b.wire, buf)
		require.NoError(b.t, err)
		if match(buf[:n]) {
			return buf[:n], true
		}
	}
}

// soon is how long to wait for what must come.
const soon = 30 * time.Second

// spec describes a test packet; what is left out is usual.
type spec struct {
	dstMAC, srcMAC net.HardwareAddr
	ether          uint16 // not IP's: then all that follows is left out
	src, dst       netip.Addr
	proto          byte // default UDP
	sport, dport   uint16
	fragment       uint16 // the field with flags and offset
	options        bool   // IP options, or an extension header
	icmpType       byte
	tag            uint64 // in the payload
	// vlan and outerVLAN, if not 0, are VLANs that the packet is in.
	vlan, outerVLAN uint16
}

// packet makes a frame of s, without checksums.
func packet(s spec) []byte {
	f := append(append([]byte(nil), s.dstMAC...), s.srcMAC...)
	for _, vlan := range []uint16{s.outerVLAN, s.vlan} {
		if vlan != 0 {
			f = binary.BigEndian.AppendUint16(f, unix.ETH_P_8021Q)
			f = binary.BigEndian.AppendUint16(f, vlan)
		}
	}
	if s.ether != 0 {
		f = binary.BigEndian.AppendUint16(f, s.ether)
		f = append(f, make([]byte, 46)...)
		return binary.BigEndian.AppendUint64(f, s.tag)
	}
	if s.proto == 0 {
		s.proto = unix.IPPROTO_UDP
	}
	var l4 []byte
	l4 = binary.BigEndian.AppendUint16(l4, s.sport)
	l4 = binary.BigEndian.AppendUint16(l4, s.dport)
	if s.icmpType != 0 {
		l4[0] = s.icmpType
	}
	l4 = append(l4, make([]byte, 20)...)
	l4 = binary.BigEndian.AppendUint64(l4, s.tag)
	if s.dst.Is4() {
		return append(f, packet4(s, l4)...)
	}
	return append(f, packet6(s, l4)...)
}

func packet4(s spec, l4 []byte) []byte {
	p := []byte{0x08, 0x00, 0x45, 0}
	options := 0
	if s.options {
		p[2], options = 0x46, 4
	}
	p = binary.BigEndian.AppendUint16(p, uint16(20+options+len(l4)))
	p = append(p, 0, 1)
	p = binary.BigEndian.AppendUint16(p, s.fragment)
	p = append(p, 64, s.proto, 0, 0)
	p = append(append(p, s.src.AsSlice()...), s.dst.AsSlice()...)
	return append(append(p, make([]byte, options)...), l4...)
}

func packet6(s spec, l4 []byte) []byte {
	p := []byte{0x86, 0xdd, 0x60, 0, 0, 0}
	if s.options {
		l4 = append([]byte{s.proto, 0, 0, 0, 0, 0, 0, 0}, l4...)
		s.proto = 60 // destination options
	}
	p = binary.BigEndian.AppendUint16(p, uint16(len(l4)))
	p = append(p, s.proto, 64)
	return append(append(append(p, s.src.AsSlice()...), s.dst.AsSlice()...), l4...)
}

// tagOf returns the tag of a frame of packet.
func tagOf(f []byte) uint64 { return binary.BigEndian.Uint64(f[len(f)-8:]) }

// tagged matches frames of packet with a tag.
func tagged(tag uint64) func([]byte) bool {
	return func(f []byte) bool { return len(f) >= 60 && tagOf(f) == tag }
}
