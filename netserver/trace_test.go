package netserver

import (
	"bufio"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// traced begins a trace and returns a function that reads its next frame.
func (b *bench) traced(n int) (next func() Traced, r *os.File) {
	r, w, err := os.Pipe()
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = r.Close() })
	require.NoError(b.t, b.Trace(n, w))
	d := json.NewDecoder(bufio.NewReader(r))
	return func() (f Traced) {
		require.NoError(b.t, r.SetReadDeadline(time.Now().Add(30*time.Second)))
		require.NoError(b.t, d.Decode(&f))
		return f
	}, r
}

func TestTrace(t *testing.T) {
	b := newBench(t)
	next, r := b.traced(6)
	step := func(arrive func(), decision, dropped string, hops ...Hop) Traced {
		t.Helper()
		arrive()
		f := next()
		require.Equal(t, decision, f.Decision)
		require.Equal(t, dropped, f.Drop)
		require.Equal(t, append([]Hop{}, hops...), f.Hops)
		require.WithinDuration(t, time.Now(), f.Time, time.Minute)
		return f
	}
	toOne := in(peer4, shared4, protoTCP, tcp(5, 80, header.TCPFlagSyn)).bytes()
	f := step(func() { b.nic.arrive(toOne) }, "deliver", "", Hop{To: 1})
	require.Equal(t, "tcp", f.Protocol)
	require.Equal(t, netip.AddrPortFrom(peer4, 5), f.Source)
	require.Equal(t, netip.AddrPortFrom(shared4, 80), f.Destination)
	require.Equal(t, len(toOne), f.Bytes)
	require.Zero(t, f.From)

	f = step(func() { b.send(3, out(dedicated4, peer4, protoUDP, udp(1, 2)).bytes()) }, "uplink", "", Hop{})
	require.EqualValues(t, 3, f.From)
	step(func() { b.send(3, out(shared4, peer4, protoUDP, udp(1, 2)).bytes()) }, "drop", "spoofed_ip")
	step(func() { b.nic.arrive([]byte{1, 2, 3}) }, "drop", "short")
	f = step(func() { b.nic.arrive(arp(arpRequest, peerMAC, peer4, shared4)) }, "answer arp", "", Hop{})
	require.Equal(t, "arp", f.Protocol)
	f = step(func() { b.nic.arrive(toGroup(in(peer6, peer6, protoUDP, udp(5, 5353))).bytes()) }, "flood", "", Hop{To: 1}, Hop{To: 2}, Hop{To: 3})
	require.Equal(t, netip.AddrPortFrom(peer6, 5), f.Source)

	rest, err := io.ReadAll(r)
	require.NoError(t, err, "six frames, and no more")
	require.Empty(t, rest)
}

// TestTraceEnds: by a later one, by the reader, with the server; bad numbers are refused.
func TestTraceEnds(t *testing.T) {
	b := newBench(t)
	_, first := b.traced(5)
	next, second := b.traced(2)
	rest, err := io.ReadAll(first)
	require.NoError(t, err)
	require.Empty(t, rest)
	b.nic.arrive([]byte{1})
	require.Equal(t, "short", next().Drop)
	require.NoError(t, second.Close())
	b.nic.arrive([]byte{1})
	b.traced(MaxTrace) // which ends with the server
	for _, n := range []int{0, -1, MaxTrace + 1} {
		_, w, err := os.Pipe()
		require.NoError(t, err)
		require.Error(t, b.Trace(n, w))
		require.ErrorIs(t, w.Close(), os.ErrClosed)
	}
}

// TestUntracedFrames: while nobody looks, a frame costs no allocation more.
func TestUntracedFrames(t *testing.T) {
	b := newBench(t)
	w := b.workers[0]
	require.Zero(t, testing.AllocsPerRun(100, func() {
		w.traceBegin(60)
		w.dropped(dropShort)
		w.traceEnd()
	}))
	w.batch = Account{}
}
