package e2e

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// TestUplinks serves instances over each driver that a network server's uplink
// can have besides AF_XDP, which all other tests use: connections both ways, bulk
// data, datagrams of all kinds of sizes, and nothing for the host's own stack.
func TestUplinks(t *testing.T) {
	for _, uplink := range []string{"afpacket", "tap"} {
		t.Run(uplink, func(t *testing.T) {
			r := newRig(t, variant{engine: engines[0], driver: serverMode, uplink: uplink}, lab.Options{})
			before := r.hostReceived()
			redis, addr := r.startServer(t, "redis", "--name", "redis")
			checkRedis(t, r, addr)
			checkRedis(t, r, netip.AddrPortFrom(addr6, addr.Port()))
			web := r.startNamed("web", guest, "http", ":8080")
			web.await("ready")
			const n = 20 << 20
			download(t, r, netip.AddrPortFrom(addr4, 8080), n)
			checkUpload(t, r.http(), netip.AddrPortFrom(addr4, 8080), n)

			echo := r.startNamed("echo", guest, "udpecho", ":7")
			echo.await("ready")
			c, err := r.Client.ListenPacket("udp4", lab.ClientAddr4.Addr().String()+":0")
			require.NoError(t, err)
			defer c.Close()
			e := &udpEcho{UDPConn: c.(*net.UDPConn), to: netip.AddrPortFrom(addr4, 7), data: pattern(9, 2*maxUDP), buf: make([]byte, 1<<16)}
			for size := 0; size <= maxUDP; size += 997 {
				require.NoError(t, e.exchange(size))
			}
			require.Equal(t, before, r.hostReceived(), "IP packets that the host's own stack saw")
			for _, i := range []*instance{web, echo} {
				i.terminate(143)
				i.checkStats()
			}
			redis.terminate(0)
			redis.checkStats()
		})
	}
}

// hostReceived is how many IPv4 packets the stack of the server's namespace has
// received.
func (r *rig) hostReceived() string {
	r.t.Helper()
	out, err := r.Server.Command(r.t.Context(), "cat", "/proc/net/snmp").Output()
	require.NoError(r.t, err)
	for _, line := range strings.Split(string(out), "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "Ip:" && f[3] != "InReceives" {
			return f[3]
		}
	}
	r.t.Fatal("no counters in /proc/net/snmp")
	return ""
}
