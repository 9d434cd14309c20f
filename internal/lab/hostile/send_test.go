package hostile_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"junction/internal/lab"
	"junction/internal/lab/afpacket"
	"junction/internal/lab/hostile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func target(t *testing.T, l *lab.Lab) hostile.Target {
	t.Helper()
	to, err := l.Server.HardwareAddr(lab.ServerNIC)
	require.NoError(t, err)
	from, err := l.Client.HardwareAddr(lab.ClientNIC)
	require.NoError(t, err)
	return hostile.Target{
		MAC: to, FromMAC: from, TCPPort: 7, UDPPort: 7,
		IPv4: lab.ServerAddr4.Addr(), FromIPv4: netip.MustParseAddr("198.18.0.66"),
		IPv6: lab.ServerAddr6.Addr(), FromIPv6: netip.MustParseAddr("fd00:18::66"),
	}
}

// TestKernelSurvives attacks the kernel's own stack, which is known to survive,
// and asks it for an answer afterwards.
func TestKernelSurvives(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	require.NoError(t, l.Server.AddAddr(lab.ServerNIC, lab.ServerAddr4))
	require.NoError(t, l.Server.AddAddr(lab.ServerNIC, lab.ServerAddr6))
	ln, err := l.Server.Listen("tcp", "198.18.0.2:7")
	require.NoError(t, err)
	defer ln.Close()
	r, err := hostile.Send(t.Context(), l.Client, lab.ClientNIC, target(t, l), 17*200, 1)
	require.NoError(t, err)
	for _, c := range hostile.Classes() {
		require.Equal(t, 200, r.Sent[c]+r.Refused[c], "%v", c)
		require.Greater(t, r.Sent[c], 150, "%v", c)
	}

	served := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = io.WriteString(c, "still here")
			_ = c.Close()
		}
		served <- err
	}()
	c, err := l.Client.DialContext(t.Context(), "tcp", "198.18.0.2:7")
	require.NoError(t, err)
	defer c.Close()
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.NoError(t, <-served)
	require.Equal(t, "still here", string(got))
}

// TestGiantsArriveWhole looks at what comes out of the veth.
func TestGiantsArriveWhole(t *testing.T) {
	l := lab.ForTest(t, lab.Options{ClientAddrs: []netip.Prefix{}})
	var s *afpacket.Socket
	require.NoError(t, l.Server.Do(func() (err error) {
		s, err = afpacket.Open(lab.ServerNIC, afpacket.Options{VnetHdr: true})
		return err
	}))
	defer s.Close()
	require.NoError(t, s.SetReceiveDeadline(time.Now().Add(30*time.Second)))
	r, err := hostile.Send(t.Context(), l.Client, lab.ClientNIC, target(t, l), 17, 1)
	require.NoError(t, err)
	require.Equal(t, 1, r.Sent[hostile.Giant])
	buf := make([]byte, afpacket.MaxFrame)
	longest := 0
	for range r.Total() {
		n, err := s.Receive(buf)
		require.NoError(t, err)
		longest = max(longest, n)
	}
	require.Greater(t, longest, 9000)
}

func TestSendErrors(t *testing.T) {
	l := lab.ForTest(t, lab.Options{})
	_, err := hostile.Send(t.Context(), l.Client, "no-such-nic", target(t, l), 1, 1)
	require.ErrorContains(t, err, "no-such-nic")
	_, err = hostile.Send(t.Context(), l.Client, lab.ClientNIC, hostile.Target{MAC: net.HardwareAddr{1}}, 1, 1)
	require.ErrorContains(t, err, "target")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = hostile.Send(ctx, l.Client, lab.ClientNIC, target(t, l), 1, 1)
	require.ErrorIs(t, err, context.Canceled)
}
