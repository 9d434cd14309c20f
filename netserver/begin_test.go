package netserver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"junction/ipc"
)

// TestBeginHoldsTheWire: what had come before the instances were attached again
// reaches them.
func TestBeginHoldsTheWire(t *testing.T) {
	begin := make(chan struct{})
	nic := newFakeNIC()
	s, err := New(Options{Uplink: nic, View: newForwarder(t).view(), Begin: begin})
	require.NoError(t, err)
	sent := in(peer4, shared4, protoUDP, udp(9, 80, 1, 2, 3)).bytes()
	nic.arrive(sent)
	pair, err := ipc.NewPair(ipc.Options{})
	require.NoError(t, err)
	defer pair.Close()
	mine, err := pair.Attach(ipc.InstanceSide)
	require.NoError(t, err)
	defer mine.Close()
	theirs, err := pair.Attach(ipc.ServerSide)
	require.NoError(t, err)
	require.NoError(t, s.Attach(Port{ID: one.id, Shared: one.shared}, theirs))
	require.Zero(t, s.Stats().Uplink.In)
	close(begin)
	batch := make([][]byte, 1)
	for got := []byte(nil); got == nil; {
		n, err := mine.Receive(batch)
		require.NoError(t, err)
		if n == 0 {
			require.NoError(t, mine.Wait())
			continue
		}
		if f := batch[0][ipc.VnetHdrLen:]; !isQuery(f) {
			got = f
			require.Equal(t, sent, f)
		}
		mine.Release()
	}
	s.Close()
	require.NoError(t, nic.Close())
	s.Wait()
}

// TestCloseBeforeBegin: a server ends that was never told to begin.
func TestCloseBeforeBegin(t *testing.T) {
	nic := newFakeNIC()
	s, err := New(Options{Uplink: nic, View: newForwarder(t).view(), Begin: make(chan struct{})})
	require.NoError(t, err)
	s.Close()
	s.Wait()
}
