package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// ICMP types of echo requests and replies (RFC 792, RFC 4443), and how to open
// a raw socket for them.
var pings = []struct {
	network        string
	from, to       netip.Addr
	request, reply byte
}{
	{"ip4:icmp", lab.ClientAddr4.Addr(), addr4, 8, 0},
	{"ip6:ipv6-icmp", lab.ClientAddr6.Addr(), addr6, 128, 129},
}

// TestPing expects echo replies with the same content, also of fragmented requests.
func TestPing(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i := r.start(nil, guest, "signals")
		i.await("ready")
		for _, p := range pings {
			c, err := r.Client.ListenPacket(p.network, p.from.String())
			require.NoError(t, err)
			for n, size := range []int{0, 1, 56, 1400, 1472, 1473, 8000, 60000} {
				ping(t, c, p.to, p.request, p.reply, uint16(n), pattern(byte(n), size))
			}
			require.NoError(t, c.Close())
		}
		i.terminate(7)
	})
}

// ping sends a request and waits for its reply.
func ping(t *testing.T, c net.PacketConn, to netip.Addr, request, reply byte, seq uint16, data []byte) {
	t.Helper()
	const id, attempts = 0x6a78, 3 // ICMP may be lost while the address is resolved
	msg := append(make([]byte, 8), data...)
	msg[0] = request
	binary.BigEndian.PutUint16(msg[4:], id)
	binary.BigEndian.PutUint16(msg[6:], seq)
	if to.Is4() { // the kernel does it for ICMPv6
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	for range attempts {
		_, err := c.WriteTo(msg, &net.IPAddr{IP: to.AsSlice()})
		require.NoError(t, err)
		if awaitReply(t, c, reply, msg[4:]) {
			return
		}
	}
	t.Fatalf("no reply from %v to %d requests of %d bytes", to, attempts, len(data))
}

// awaitReply waits for a reply with this identifier, sequence number and data.
func awaitReply(t *testing.T, c net.PacketConn, reply byte, body []byte) bool {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	buf := make([]byte, 1<<16)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return false
		}
		if n >= 8 && buf[0] == reply && bytes.Equal(buf[4:n], body) {
			return true
		}
	}
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
