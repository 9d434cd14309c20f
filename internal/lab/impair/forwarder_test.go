package impair_test

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"junction/internal/lab"
	"junction/internal/lab/afpacket"
	"junction/internal/lab/impair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// conserved checks that every frame is accounted for. The lab must be closed.
func conserved(t *testing.T, s impair.DirectionStats) {
	t.Helper()
	require.Equal(t, s.In+s.Duplicated, s.Out+s.Lost+s.QueueFull+s.Waiting, "%+v", s)
	require.Equal(t, s.Out, s.Sent+s.SendFailed, "%+v", s)
	require.Zero(t, s.Unreadable, "%+v", s)
}

// nativeServer gives the server's kernel an address and echoes one connection.
func nativeServer(t *testing.T, l *lab.Lab) (addr string, done chan error) {
	t.Helper()
	require.NoError(t, l.Server.AddAddr(lab.ServerNIC, lab.ServerAddr4))
	addr = netip.AddrPortFrom(lab.ServerAddr4.Addr(), 7).String()
	ln, err := l.Server.Listen("tcp", addr)
	require.NoError(t, err)
	done = make(chan error, 1)
	go func() {
		defer ln.Close()
		c, err := ln.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			_ = c.Close()
		}
		done <- err
	}()
	return addr, done
}

// TestTCPSurvives sends data through a bad path, there and back, and compares.
func TestTCPSurvives(t *testing.T) {
	for name, d := range map[string]impair.Direction{
		"loss":    {Loss: 0.03},
		"reorder": {Reorder: 0.05, Duplicate: 0.05},
		"slow":    {Delay: 2 * time.Millisecond, Jitter: time.Millisecond, Rate: 100e6},
		"corrupt": {Corrupt: 0.01},
	} {
		t.Run(name, func(t *testing.T) {
			plan := impair.Both(7, d)
			l := lab.ForTest(t, lab.Options{Impair: &plan})
			addr, done := nativeServer(t, l)
			c, err := l.Client.DialContext(t.Context(), "tcp", addr)
			require.NoError(t, err)
			sent := sha256.New()
			writing := make(chan error, 1)
			go func() {
				data := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), 1<<20), sent)
				_, err := io.Copy(c, data)
				_ = c.(*net.TCPConn).CloseWrite()
				writing <- err
			}()
			got := sha256.New()
			_, err = io.Copy(got, c)
			require.NoError(t, err)
			require.NoError(t, <-writing)
			require.NoError(t, <-done)
			require.Equal(t, sent.Sum(nil), got.Sum(nil))
			require.NoError(t, c.Close())
			require.NoError(t, l.Close())
			s := l.Forwarder.Stats()
			conserved(t, s.ToServer)
			conserved(t, s.ToClient)
			require.Equal(t, d.Loss > 0, s.ToServer.Lost > 0)
			require.Equal(t, d.Reorder > 0, s.ToServer.Held > 0)
			require.Equal(t, d.Duplicate > 0, s.ToServer.Duplicated > 0)
			require.Equal(t, d.Corrupt > 0, s.ToServer.Corrupted > 0)
		})
	}
}

// openEnds opens packet sockets at the client's and the server's NIC.
func openEnds(t *testing.T, l *lab.Lab) (client, server *afpacket.Socket) {
	t.Helper()
	open := func(n *lab.Namespace, nic string) (s *afpacket.Socket) {
		require.NoError(t, n.Do(func() (err error) {
			s, err = afpacket.Open(nic, afpacket.Options{})
			return err
		}))
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	return open(l.Client, lab.ClientNIC), open(l.Server, lab.ServerNIC)
}

// TestFramesPassUnchanged sends frames of every length, some with VLAN tags, and
// expects the same at the other end.
func TestFramesPassUnchanged(t *testing.T) {
	l := lab.ForTest(t, lab.Options{Impair: &impair.Plan{}, ClientAddrs: []netip.Prefix{}})
	client, server := openEnds(t, l)
	require.NoError(t, server.SetReceiveDeadline(time.Now().Add(30*time.Second)))
	buf := make([]byte, afpacket.MaxFrame)
	for n := 60; n <= 1514; n++ {
		frame := make([]byte, n)
		for i := range frame {
			frame[i] = byte(i * n)
		}
		copy(frame, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}) // local experimental ethertype
		if n%3 == 0 {
			copy(frame[12:], []byte{0x81, 0, 0x60, 5, 0x88, 0xb5})
		}
		if n%6 == 0 {
			copy(frame[12:], []byte{0x88, 0xa8, 0, 9, 0x81, 0, 0x60, 5, 0x88, 0xb5})
		}
		require.NoError(t, client.Send(frame))
		got, err := server.Receive(buf)
		require.NoError(t, err)
		require.Equal(t, frame, buf[:got])
	}
}

// TestLossIsTheSameEachTime sends numbered frames through two labs with one seed:
// the same ones arrive.
func TestLossIsTheSameEachTime(t *testing.T) {
	const frames = 500
	run := func() (arrived []byte) {
		plan := impair.Plan{Seed: 3, ToServer: impair.Direction{Loss: 0.3, Duplicate: 0.2, Reorder: 0.2, ReorderWait: time.Minute}}
		l := lab.ForTest(t, lab.Options{Impair: &plan, ClientAddrs: []netip.Prefix{}})
		client, server := openEnds(t, l)
		for n := range frames {
			f := make([]byte, 60)
			copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5, byte(n >> 8), byte(n)})
			require.NoError(t, client.Send(f))
		}
		buf := make([]byte, afpacket.MaxFrame)
		require.NoError(t, server.SetReceiveDeadline(time.Now().Add(30*time.Second)))
		for range expectedWithout(plan, frames) {
			n, err := server.Receive(buf)
			require.NoError(t, err)
			require.Equal(t, 60, n)
			arrived = append(arrived, buf[14], buf[15])
		}
		return arrived
	}
	require.Equal(t, run(), run())
}

// expectedWithout tells from the plan how many frames come out before any
// deadline.
func expectedWithout(p impair.Plan, frames int) int {
	l, err := impair.NewLine(p.ToServer, p.Seed)
	if err != nil {
		panic(err)
	}
	for range frames {
		l.Push(0, make([]byte, 60))
	}
	n := 0
	for _, ok := l.Pop(0); ok; _, ok = l.Pop(0) {
		n++
	}
	return n
}

// TestCloseWhileFramesWait must not wait for them.
func TestCloseWhileFramesWait(t *testing.T) {
	plan := impair.Both(1, impair.Direction{Delay: time.Minute})
	l := lab.ForTest(t, lab.Options{Impair: &plan})
	client, _ := openEnds(t, l)
	require.NoError(t, client.Send(make([]byte, 60)))
	require.NoError(t, l.Forwarder.Close())
	require.NoError(t, l.Forwarder.Close())
	conserved(t, l.Forwarder.Stats().ToServer)
}

func TestStartErrors(t *testing.T) {
	_, err := impair.Start("no-such-nic", "lo", impair.Plan{})
	require.ErrorContains(t, err, "no-such-nic")
	_, err = impair.Start("lo", "no-such-nic", impair.Plan{})
	require.ErrorContains(t, err, "no-such-nic")
	_, err = impair.Start("lo", "lo", impair.Both(1, impair.Direction{Loss: 2}))
	require.ErrorContains(t, err, "Loss 2")
}
