package direct_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/direct"
)

// TestFull: a queue that is not flushed fills up, says so, and loses nothing.
func TestFull(t *testing.T) {
	enter(t)
	mac, peer := wire(t, 1500, 1)
	q := open(t, direct.Options{NIC: nicName, Driver: "afxdp"}).Queues()[0]
	s := newStation(t, peerName)
	f := func(i int) []byte { return frame(peer.HardwareAddr, mac.HardwareAddr, 300, i) }
	n := 0
	for q.Transmit(nil, [][]byte{f(n)}) == nil {
		n++
	}
	require.Greater(t, n, 100)
	require.ErrorIs(t, q.Transmit(nil, [][]byte{f(n)}), direct.ErrFull)
	require.Equal(t, uint64(2), q.Stats().Refused["tx_full"])
	require.Zero(t, q.Stats().TxPackets)
	require.NoError(t, q.Flush())
	require.NoError(t, q.TransmitWait())
	transmit(t, q, f(n))
	require.NoError(t, q.Flush())
	require.Equal(t, uint64(n+1), q.Stats().TxPackets+q.Stats().Drops["tx_device"])
	requireWireLost(t, nicName, func(lost int) {
		buf := make([]byte, 2048)
		for i := range n + 1 - lost {
			got := s.receive(buf)
			if lost == 0 {
				require.Equal(t, f(i), got)
			}
		}
	})
}

// requireWireLost tells f how many frames the veth itself dropped on their way
// out of name: its own ring holds 256.
func requireWireLost(t *testing.T, name string, f func(lost int)) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	f(int(l.Attrs().Statistics.TxDropped))
}

// TestOverrun: a receiver that does not release loses frames, and every one is
// counted; after a release all goes on.
func TestOverrun(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		s, q := newStation(t, peerName), d.Queues()[0]
		const sent = 12_000
		for i := range sent {
			s.send(frame(mac, peer, 128, i))
		}
		batch := make([][]byte, sent)
		n, err := q.Receive(batch)
		require.NoError(t, err)
		for i, f := range batch[:n] {
			require.Equal(t, frame(mac, peer, 128, i), f[direct.VnetHdrLen:], "the first come first")
		}
		more, err := q.Receive(batch[n:])
		require.NoError(t, err)
		require.Zero(t, more, "no buffer is given out twice")
		q.Release()
		rest := 0
		for {
			k, err := q.Receive(batch)
			require.NoError(t, err)
			q.Release()
			if rest += k; k == 0 {
				break
			}
		}
		stats := d.Stats()
		require.Equal(t, uint64(n+rest), stats.RxPackets)
		lost := stats.Drops["rx_ring_full"] + stats.Drops["rx_fill_ring_empty"]
		require.NotZero(t, lost)
		requireWireLost(t, peerName, func(wire int) {
			require.Equal(t, uint64(sent-wire), stats.RxPackets+lost)
		})
		echo(t, q, s, mac, peer, 100)
		require.NoError(t, d.Close())
		require.Equal(t, uint64(n+rest+1), d.Stats().RxPackets, "also after Close")
		require.Equal(t, lost, d.Stats().Drops["rx_ring_full"]+d.Stats().Drops["rx_fill_ring_empty"])
	})
}

// TestBadFrames refuses what no device can send.
func TestBadFrames(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		q := open(t, direct.Options{NIC: nicName, Driver: driver}).Queues()[0]
		require.ErrorIs(t, q.Transmit(nil, nil), direct.ErrBadFrame)
		require.ErrorIs(t, q.Transmit(nil, [][]byte{make([]byte, 13)}), direct.ErrBadFrame)
		require.ErrorIs(t, q.Transmit(nil, [][]byte{make([]byte, 70000)}), direct.ErrTooLong)
		require.NoError(t, q.Flush())
		require.Equal(t, map[string]uint64{"tx_full": 0, "tx_too_long": 1, "tx_bad_frame": 2, "tx_bad_header": 0, "tx_device": 0}["tx_bad_frame"],
			q.Stats().Refused["tx_bad_frame"])
	})
}

// TestNewTAP makes a TAP and speaks with its host side.
func TestNewTAP(t *testing.T) {
	for _, existing := range []bool{false, true} {
		enter(t)
		if existing {
			persistentTAP(t, "tap5")
		}
		d := open(t, direct.Options{NIC: "tap5", Driver: "tap", Queues: 2})
		require.Equal(t, "tap", d.Mode().Attach)
		require.Len(t, d.Queues(), 2)
		require.Equal(t, byte(2), d.MAC()[0]&3, "locally administered, unicast")
		host := up(t, "tap5").Attrs().HardwareAddr
		require.NotEqual(t, host, d.MAC())
		refused(t, direct.Options{NIC: "tap5", Driver: "tap"}, direct.ErrInUse, "pid")
		s := newStation(t, "tap5")
		out := frame(host, d.MAC(), 500, 1)
		transmit(t, d.Queues()[1], out)
		require.Equal(t, out, s.receive(make([]byte, 2048)))
		in := frame(d.MAC(), host, 600, 2)
		s.send(in)
		require.Equal(t, in, eitherQueue(t, d))
		require.NoError(t, d.Close())
		_, err := netlink.LinkByName("tap5")
		require.Equal(t, existing, err == nil)
	}
}

// eitherQueue returns the next test frame of a device with two queues.
func eitherQueue(t *testing.T, d direct.Device) []byte {
	t.Helper()
	batch := make([][]byte, 8)
	for {
		for _, q := range d.Queues() {
			n, err := q.Receive(batch)
			require.NoError(t, err)
			for _, f := range batch[:n] {
				if f = f[direct.VnetHdrLen:]; f[12] == etherTest>>8 && f[13] == etherTest&0xff {
					return f
				}
			}
			q.Release()
		}
	}
}

func TestNewTAPWithMTU(t *testing.T) {
	enter(t)
	d := open(t, direct.Options{NIC: "tap6", Driver: "tap", MTU: 9000})
	require.Equal(t, 9000, d.MTU())
	require.Equal(t, 9000, up(t, "tap6").Attrs().MTU)
}
