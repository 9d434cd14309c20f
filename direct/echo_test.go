package direct_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/direct"
)

var drivers = []string{"afxdp", "tap", "afpacket"}

// eachDriver runs f once for each driver, in a namespace with a wire.
func eachDriver(t *testing.T, mtu, queues int, f func(t *testing.T, driver string, mac, peer net.HardwareAddr)) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			enter(t)
			mac, peer := wire(t, mtu, queues)
			f(t, driver, mac.HardwareAddr, peer.HardwareAddr)
		})
	}
}

// echo sends one frame of n bytes each way and compares each byte.
func echo(t *testing.T, q direct.Queue, s *station, mac, peer net.HardwareAddr, n int) {
	out := frame(mac, peer, n, 1)
	s.send(out)
	in, headers := collect(t, q, 1)
	require.Equal(t, out, in[0], "size %d in", n)
	require.Equal(t, make([]byte, direct.VnetHdrLen), headers[0], "no checksum, no segments")
	back := frame(peer, mac, n, 2)
	transmit(t, q, back[:14], nil, back[14:n/2+7], back[n/2+7:])
	require.NoError(t, q.Flush())
	require.Equal(t, back, s.receive(make([]byte, 16<<10)), "size %d out", n)
}

func requireNoDrops(t *testing.T, s direct.QueueStats) {
	t.Helper()
	for reason, n := range s.Drops {
		require.Zero(t, n, reason)
	}
	require.Zero(t, s.BadIndices)
}

func TestEchoEverySize(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		require.Equal(t, driver, d.Mode().Driver)
		require.Equal(t, mac, d.MAC())
		require.Equal(t, 1500, d.MTU())
		require.Empty(t, d.Mode().Warnings)
		if l := up(nil, nicName).Attrs(); l.Promisc == 0 {
			require.NotZero(t, allMulticast(t, l.Index), "IPv6 needs multicast")
		}
		s := newStation(t, peerName)
		for n := 14; n <= 1514; n++ {
			echo(t, d.Queues()[0], s, mac, peer, n)
		}
		stats := d.Stats()
		require.Equal(t, uint64(1501), stats.RxPackets)
		require.Equal(t, uint64(1501), stats.TxPackets)
		require.Equal(t, uint64((14+1514)*1501/2), stats.RxBytes)
		require.Equal(t, stats.RxBytes, stats.TxBytes)
		requireNoDrops(t, stats)
	})
}

func TestEchoJumbo(t *testing.T) {
	eachDriver(t, 9000, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		require.Equal(t, driver == "afxdp", d.Mode().Frags)
		require.Equal(t, 9000, d.MTU())
		s := newStation(t, peerName)
		for n := 14; n <= 9014; n += 13 {
			echo(t, d.Queues()[0], s, mac, peer, n)
		}
		echo(t, d.Queues()[0], s, mac, peer, 9014)
		requireNoDrops(t, d.Stats())
	})
}

// TestGeneric is on a bridge, which has no XDP of its own.
func TestGeneric(t *testing.T) {
	enter(t)
	_, peer := wire(t, 1500, 1)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	require.NoError(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	bridge := up(t, "br0")
	require.NoError(t, netlink.LinkSetMaster(up(t, nicName), bridge))
	for _, driver := range drivers {
		d := open(t, direct.Options{NIC: "br0", Driver: driver})
		if driver == "afxdp" {
			require.Equal(t, "generic", d.Mode().Attach)
			require.Contains(t, d.Mode().Warnings[0], "native XDP not available")
		}
		s := newStation(t, peerName)
		for n := 60; n <= 1514; n += 7 {
			echo(t, d.Queues()[0], s, d.MAC(), peer.HardwareAddr, n)
		}
		requireNoDrops(t, d.Stats())
		require.NoError(t, d.Close())
	}
}

// TestEchoLargestSingleBuffer is at the greatest MTU without fragments.
func TestEchoLargestSingleBuffer(t *testing.T) {
	eachDriver(t, 3498, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		require.False(t, d.Mode().Frags)
		require.NotEqual(t, "generic", d.Mode().Attach)
		s := newStation(t, peerName)
		for n := 3500; n <= 3512; n++ {
			echo(t, d.Queues()[0], s, mac, peer, n)
		}
		requireNoDrops(t, d.Stats())
	})
}

// TestWrapAround goes several times around every ring, with bursts.
func TestWrapAround(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		s, q := newStation(t, peerName), d.Queues()[0]
		const rounds, burst = 150, 60
		buf := make([]byte, 2048)
		for r := range rounds {
			for i := range burst {
				s.send(frame(mac, peer, 100+i, r))
			}
			in, _ := collect(t, q, burst)
			for i, f := range in {
				require.Equal(t, frame(mac, peer, 100+i, r), f)
				transmit(t, q, frame(peer, mac, 200+i, r))
			}
			require.NoError(t, q.Flush())
			for i := range burst {
				require.Equal(t, frame(peer, mac, 200+i, r), s.receive(buf))
			}
		}
		stats := d.Stats()
		require.Equal(t, uint64(rounds*burst), stats.RxPackets)
		require.Equal(t, uint64(rounds*burst), stats.TxPackets)
		requireNoDrops(t, stats)
	})
}

// TestQueues receives and sends on each of two queues.
func TestQueues(t *testing.T) {
	eachDriver(t, 1500, 2, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver, Queues: 2})
		require.Len(t, d.Queues(), 2)
		require.Equal(t, 2, d.Mode().Queues)
		s := newStation(t, peerName)
		const n = 200
		for i := range n { // different flows may go to different queues
			f := frame(mac, peer, 60+i, i)
			s.send(f)
		}
		seen := map[string]bool{}
		batch := make([][]byte, 64)
		for len(seen) < n {
			for _, q := range d.Queues() {
				got, err := q.Receive(batch)
				require.NoError(t, err)
				for _, f := range batch[:got] {
					seen[string(f[direct.VnetHdrLen:])] = true
				}
				q.Release()
			}
		}
		for i := range n {
			require.True(t, seen[string(frame(mac, peer, 60+i, i))], "frame %d", i)
		}
		for id, q := range d.Queues() {
			f := frame(peer, mac, 100, id)
			transmit(t, q, f)
			require.NoError(t, q.Flush())
			require.Equal(t, f, s.receive(make([]byte, 2048)))
			require.Equal(t, uint64(1), q.Stats().TxPackets)
		}
		require.Equal(t, uint64(n), d.Stats().RxPackets)
		requireNoDrops(t, d.Stats())
	})
}

// TestFewerQueues: the NIC is made to receive on one queue, or else all are
// opened, with a warning; either way nothing is lost.
func TestFewerQueues(t *testing.T) {
	for _, peerQueues := range []int{1, 2} {
		t.Run(fmt.Sprintf("peer sends on %d", peerQueues), func(t *testing.T) {
			enter(t)
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = nicName, 2, 2
			require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerName,
				PeerNumTxQueues: uint32(peerQueues), PeerNumRxQueues: 2}))
			up(t, peerName)
			d := open(t, direct.Options{NIC: nicName, Driver: "afxdp", Queues: 1})
			require.Len(t, d.Queues(), peerQueues)
			require.Equal(t, peerQueues == 2, len(d.Mode().Warnings) == 1, "%v", d.Mode().Warnings)
			require.Equal(t, "native", d.Mode().Attach)
			s := newStation(t, peerName)
			s.send(frame(d.MAC(), make([]byte, 6), 100, 1))
			if peerQueues == 1 {
				collect(t, d.Queues()[0], 1)
			}
		})
	}
}
