package direct_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"junction/direct"
)

var drivers = []string{"afxdp", "tap"}

// TestEcho sends frames of every size both ways and compares each byte.
func TestEcho(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			enter(t)
			mac, peer := wire(t, 1500, 1)
			d := open(t, direct.Options{NIC: nicName, Driver: driver})
			t.Logf("%+v %+v", d.Mode(), d.Offloads())
			s := newStation(t, peerName)
			q := d.Queues()[0]
			buf := make([]byte, 2048)
			for n := 14; n <= 1514; n++ {
				out := frame(mac.HardwareAddr, peer.HardwareAddr, n, 1)
				s.send(out)
				in, _ := collect(t, q, 1)
				require.Equal(t, out, in[0], "size %d in", n)
				back := frame(peer.HardwareAddr, mac.HardwareAddr, n, 2)
				transmit(t, q, back[:14], back[14:n/2+7], back[n/2+7:])
				require.NoError(t, q.Flush())
				require.Equal(t, back, s.receive(buf), "size %d out", n)
			}
			stats := d.Stats()
			require.GreaterOrEqual(t, stats.RxPackets, uint64(1501))
			require.Equal(t, uint64(1501), stats.TxPackets)
			for reason, n := range stats.Drops {
				require.Zero(t, n, reason)
			}
		})
	}
}
