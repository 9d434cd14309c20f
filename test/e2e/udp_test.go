package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// maxUDP is the largest payload of UDP over IPv4: 65535 less 20 and 8 bytes of headers.
const maxUDP = 65507

// TestUDPSizes echoes datagrams of every size; with -short of every 97th.
func TestUDPSizes(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 97
	}
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i := r.start(nil, guest, "udpecho", ":7")
		i.await("ready")
		c, err := r.Client.ListenPacket("udp4", "198.18.0.1:0")
		require.NoError(t, err)
		defer c.Close()
		e := &udpEcho{UDPConn: c.(*net.UDPConn), to: netip.AddrPortFrom(addr4, 7), data: pattern(9, 2*maxUDP), buf: make([]byte, 1<<16)}
		for size := 0; size <= maxUDP; size += step {
			require.NoError(t, e.exchange(size))
		}
		require.NoError(t, e.exchange(maxUDP))
		t.Logf("%d datagrams lost", e.lost)
		i.terminate(143)
		i.checkStats()
	})
}

// udpEcho exchanges one datagram at a time with an echo server.
type udpEcho struct {
	*net.UDPConn
	to   netip.AddrPort
	data []byte // of at least twice the largest size
	buf  []byte
	lost int
}

// exchange sends size bytes, which differ from size to size, and compares the
// answer. UDP may lose a datagram, but not the same one again and again.
func (e *udpEcho) exchange(size int) error {
	const attempts = 5
	want := e.data[size : 2*size]
	for range attempts {
		if _, err := e.WriteToUDPAddrPort(want, e.to); err != nil {
			return fmt.Errorf("%d bytes: %w", size, err)
		}
		err := e.receive(want)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		e.lost++
	}
	return fmt.Errorf("%d bytes: no answer to %d datagrams", size, attempts)
}

// receive waits for want; answers that are late, of other sizes, are passed over.
func (e *udpEcho) receive(want []byte) error {
	if err := e.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	for {
		n, from, err := e.ReadFromUDPAddrPort(e.buf)
		switch {
		case err != nil:
			return err
		case netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != e.to:
			return fmt.Errorf("%d bytes: an answer from %v", len(want), from)
		case n != len(want):
			continue
		case !bytes.Equal(e.buf[:n], want):
			return fmt.Errorf("%d bytes: the answer differs", n)
		}
		return nil
	}
}
