package direct_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct"
)

// nextFrom returns the next frame that comes to a station from mac, with its
// virtio_net_hdr.
func nextFrom(t *testing.T, station int, mac net.HardwareAddr, buf []byte) []byte {
	t.Helper()
	for {
		n, err := unix.Read(station, buf)
		require.NoError(t, err, "no frame came")
		if n >= direct.VnetHdrLen+14 && net.HardwareAddr(buf[direct.VnetHdrLen+6:][:6]).String() == mac.String() {
			return buf[:n]
		}
	}
}

// TestTransmitSegments: a TCP packet of 60 KB reaches the veth's peer whole, by a
// TAP as by the outlet of an AF_XDP queue.
func TestTransmitSegments(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		for _, driver := range []string{"tap", "afxdp"} {
			t.Run(driver, func(t *testing.T) {
				enter(t)
				mac, peer := wire(t, mtu, 1)
				d := open(t, direct.Options{NIC: nicName, Driver: driver})
				require.GreaterOrEqual(t, d.Offloads().GSOMax, 65536)
				require.Equal(t, driver == "tap", d.Offloads().RXJoined)
				station, q := vnetStation(t), d.Queues()[0]
				payload := random(60000)
				out, start, offset := segment{peer.HardwareAddr, mac.HardwareAddr, peer4, ours4, 6, payload, true, 0}.build()
				require.ErrorIs(t, q.Transmit(vnetHdr(1, 0, 0, 0, start, offset), [][]byte{out}), direct.ErrTooLong)
				require.NoError(t, q.Transmit(vnetHdr(1, 1, start+20, mtu-40, start, offset), [][]byte{out[:54], out[54:1000], out[1000:]}))
				require.NoError(t, q.Flush())
				got := nextFrom(t, station, mac.HardwareAddr, make([]byte, 70000))
				require.Equal(t, byte(1), got[1], "arrives whole at the veth's peer")
				require.Equal(t, out[start+20:], got[direct.VnetHdrLen+start+20:])
				stats := d.Stats()
				require.EqualValues(t, 1, stats.TxPackets, "a packet that is cut behind the device counts once")
				require.EqualValues(t, len(out), stats.TxBytes)
				requireNoDrops(t, stats)
			})
		}
	}
}

// TestOutletKeepsOrder: small packets by the socket and large ones by the outlet
// reach the peer in the order in which they were sent.
func TestOutletKeepsOrder(t *testing.T) {
	enter(t)
	// Behind the NIC each processor has a queue of its own.
	var one unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &one))
	for cpu := 0; one.Count() > 1; cpu++ {
		one.Clear(cpu)
	}
	require.NoError(t, unix.SchedSetaffinity(0, &one))
	mac, peer := wire(t, 1500, 1)
	d := open(t, direct.Options{NIC: nicName, Driver: "afxdp"})
	require.Equal(t, "segments", string(d.Mode().Outlet))
	station, q := vnetStation(t), d.Queues()[0]
	buf := make([]byte, 70000)
	for round := range byte(20) {
		const each = 12
		for i := range byte(each) {
			n, hdr := 100, (*[direct.VnetHdrLen]byte)(nil)
			if i%3 == 2 {
				n = 20000
			}
			payload := random(n)
			payload[0], payload[1] = round, i
			out, start, offset := segment{peer.HardwareAddr, mac.HardwareAddr, peer4, ours4, 6, payload, true, 0}.build()
			hdr = vnetHdr(1, 0, 0, 0, start, offset)
			if n > 1400 {
				hdr = vnetHdr(1, 1, start+20, 1460, start, offset)
			}
			require.NoError(t, q.Transmit(hdr, [][]byte{out}))
		}
		require.NoError(t, q.Flush())
		for i := range byte(each) {
			got := nextFrom(t, station, mac.HardwareAddr, buf)
			require.Equal(t, []byte{round, i}, got[direct.VnetHdrLen+54:][:2])
		}
	}
	requireNoDrops(t, d.Stats())
}

// TestOutletsQueues: each queue of the NIC has one.
func TestOutletsQueues(t *testing.T) {
	enter(t)
	mac, peer := wire(t, 1500, 2)
	d := open(t, direct.Options{NIC: nicName, Driver: "afxdp"})
	station := vnetStation(t)
	require.Len(t, d.Queues(), 2)
	for i, q := range d.Queues() {
		payload := random(30000 + i)
		out, start, offset := segment{peer.HardwareAddr, mac.HardwareAddr, peer4, ours4, 6, payload, true, 0}.build()
		require.NoError(t, q.Transmit(vnetHdr(1, 1, start+20, 1460, start, offset), [][]byte{out}))
		got := nextFrom(t, station, mac.HardwareAddr, make([]byte, 70000))
		require.Equal(t, out[start+20:], got[direct.VnetHdrLen+start+20:])
		require.EqualValues(t, 1, q.Stats().TxPackets)
	}
}

// TestNoOutlet: without, there is no further device and the queue takes nothing
// larger than the MTU; with one, it ends with the device.
func TestNoOutlet(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	count := func() int {
		all, err := netlink.LinkList()
		require.NoError(t, err)
		return len(all)
	}
	before := count()
	d := open(t, direct.Options{NIC: nicName, Driver: "afxdp", NoOutlet: true})
	require.Equal(t, before, count())
	require.Zero(t, d.Offloads().GSOMax)
	require.Empty(t, d.Mode().Outlet)
	require.NoError(t, d.Close())

	d = open(t, direct.Options{NIC: nicName, Driver: "afxdp"})
	require.Equal(t, before+1, count())
	require.NoError(t, d.Close())
	require.Equal(t, before, count())
}
