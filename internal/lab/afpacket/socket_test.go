package afpacket_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
	"junction/internal/lab/afpacket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a socket in a namespace until the test ends.
func open(t *testing.T, n *lab.Namespace, nic string, o afpacket.Options) (s *afpacket.Socket) {
	t.Helper()
	require.NoError(t, n.Do(func() (err error) {
		s, err = afpacket.Open(nic, o)
		return err
	}))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func udpAddr(s string) net.Addr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// broadcast makes a frame of the local experimental ethertype (IEEE 802).
func broadcast(size int) []byte {
	f := make([]byte, size)
	copy(f, []byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
	return f
}

// receive returns the next frame of broadcast's ethertype: a lab's kernels
// announce their IPv6 addresses at times of their own choosing.
func receive(t *testing.T, s *afpacket.Socket, size int) ([]byte, error) {
	t.Helper()
	require.NoError(t, s.SetReceiveDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, size)
	for {
		n, err := s.Receive(buf)
		if err != nil || (buf[12] == 0x88 && buf[13] == 0xb5) {
			return buf[:n], err
		}
	}
}

func TestSendAndReceive(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	a := open(t, l.Client, lab.ClientNIC, afpacket.Options{})
	b := open(t, l.Server, lab.ServerNIC, afpacket.Options{})
	require.NoError(t, a.Send(broadcast(100)))
	got, err := receive(t, b, 2048)
	require.NoError(t, err)
	require.Equal(t, broadcast(100), got)

	require.NoError(t, b.Send(broadcast(60)))
	got, err = receive(t, a, 2048)
	require.NoError(t, err)
	require.Len(t, got, 60, "a socket hears what it sends")
}

func TestReceiveDeadline(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	s := open(t, l.Server, lab.ServerNIC, afpacket.Options{})
	require.NoError(t, s.SetReceiveDeadline(time.Now().Add(-time.Second)))
	_, err := s.Receive(make([]byte, 2048))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestFrameLongerThanTheBuffer(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	a := open(t, l.Client, lab.ClientNIC, afpacket.Options{SendOnly: true})
	b := open(t, l.Server, lab.ServerNIC, afpacket.Options{})
	// The kernels' own frames are far shorter than 1000 bytes.
	require.NoError(t, a.Send(broadcast(1200)))
	require.NoError(t, a.Send(broadcast(60)))
	_, err := receive(t, b, 1000)
	require.ErrorIs(t, err, afpacket.ErrTooLong)
	got, err := receive(t, b, 1000)
	require.NoError(t, err)
	require.Len(t, got, 60)
	require.ErrorIs(t, a.Send(broadcast(1600)), unix.EMSGSIZE)
}

func TestPartialChecksumsAreRefused(t *testing.T) {
	l := lab.ForTest(t, lab.Options{}) // with offloads
	b := open(t, l.Server, lab.ServerNIC, afpacket.Options{})
	c, err := l.Client.ListenPacket("udp", "198.18.0.1:0")
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, l.Client.Neighbour(lab.ClientNIC, lab.ServerAddr4.Addr(), []byte{2, 0, 0, 0, 0, 9}))
	_, err = c.WriteTo([]byte("x"), udpAddr("198.18.0.2:9"))
	require.NoError(t, err)
	_, err = receive(t, b, 2048)
	require.ErrorIs(t, err, afpacket.ErrPartialChecksum)
}

func TestDroppedIsCounted(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	a := open(t, l.Client, lab.ClientNIC, afpacket.Options{SendOnly: true})
	b := open(t, l.Server, lab.ServerNIC, afpacket.Options{})
	var dropped uint64
	sent := uint64(0)
	for ; dropped == 0 && sent < 1e6; sent++ {
		require.NoError(t, a.Send(broadcast(1514)))
		if sent%1000 == 0 {
			n, err := b.Dropped()
			require.NoError(t, err)
			dropped += n
		}
	}
	require.NotZero(t, dropped)
	require.Less(t, dropped, sent)
}

func TestCloseEndsReceive(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	s := open(t, l.Server, lab.ServerNIC, afpacket.Options{})
	ended := make(chan error)
	go func() {
		buf := make([]byte, 2048)
		for {
			if _, err := s.Receive(buf); err != nil {
				ended <- err
				return
			}
		}
	}()
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-ended, os.ErrClosed)
	require.ErrorIs(t, s.Send(broadcast(60)), os.ErrClosed)
}

func TestOpenErrors(t *testing.T) {
	_, err := afpacket.Open("no-such-nic", afpacket.Options{})
	require.ErrorContains(t, err, "no-such-nic")
}
