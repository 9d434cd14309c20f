package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain runs the other process of tests with two, or all tests, after which
// no goroutine may be left.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(runRole(role))
	}
	goleak.VerifyTestMain(m)
}

// small has the fewest buffers allowed that hold two of the longest frames.
var small = Options{Buffers: 1024, BufferSize: 256}

// ordinaryLane returns a ring in ordinary memory, where the race detector sees
// all accesses, with indices that start at start.
func ordinaryLane(buffers, bufferSize int, start uint32) lane {
	l := lane{
		producer: new(atomic.Uint32), consumer: new(atomic.Uint32),
		rxSleep: new(atomic.Uint64), txSleep: new(atomic.Uint64),
		desc: make([]uint32, buffers), data: make([]byte, buffers*bufferSize),
	}
	l.producer.Store(start)
	l.consumer.Store(start)
	return l
}

// ordinaryEnds returns both sides of a ring pair in ordinary memory.
func ordinaryEnds(t testing.TB, buffers, bufferSize int, start uint32) (a, b *End) {
	ab, ba := ordinaryLane(buffers, bufferSize, start), ordinaryLane(buffers, bufferSize, start)
	bellAB, err := newBell()
	require.NoError(t, err)
	bellBA, err := newBell()
	require.NoError(t, err)
	a, b = newEnd(ab, ba), newEnd(ba, ab)
	a.unmap, b.unmap = func() {}, func() {}
	require.NoError(t, a.openBells(bellAB[0], bellBA[1]))
	require.NoError(t, b.openBells(bellBA[0], bellAB[1]))
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// ends returns both sides of a ring pair in a memfd.
func ends(t testing.TB, o Options) (p *Pair, server, instance *End) {
	p, err := NewPair(o)
	require.NoError(t, err)
	server, err = p.Attach(ServerSide)
	require.NoError(t, err)
	instance, err = p.Attach(InstanceSide)
	require.NoError(t, err)
	t.Cleanup(func() { server.Close(); instance.Close(); p.Close() })
	return p, server, instance
}

// frameOf returns frame number seq of n bytes, whose content follows from both.
func frameOf(buf []byte, seq uint64, n int) (*[VnetHdrLen]byte, []byte) {
	var hdr [VnetHdrLen]byte
	binary.LittleEndian.PutUint64(hdr[:], seq)
	binary.LittleEndian.PutUint16(hdr[8:], uint16(n))
	buf = buf[:n]
	x := seq*0x9E3779B97F4A7C15 + uint64(n)
	i := 0
	for ; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(buf[i:], x)
		x += 0x9E3779B97F4A7C15
	}
	for ; i < n; i++ {
		buf[i] = byte(x >> (8 * (i & 7)))
	}
	return &hdr, buf
}

// verify compares a received buffer with frame number seq of n bytes.
func verify(got []byte, seq uint64, n int, scratch []byte) error {
	hdr, frame := frameOf(scratch, seq, n)
	switch {
	case len(got) != VnetHdrLen+n:
		return fmt.Errorf("frame %d: %d bytes, want %d", seq, len(got)-VnetHdrLen, n)
	case string(got[:VnetHdrLen]) != string(hdr[:]):
		return fmt.Errorf("frame %d: header %x, want %x", seq, got[:VnetHdrLen], *hdr)
	case string(got[VnetHdrLen:]) != string(frame):
		return fmt.Errorf("frame %d of %d bytes: wrong content", seq, n)
	}
	return nil
}

// sendAll transmits one frame, waiting for room.
func sendAll(e *End, hdr *[VnetHdrLen]byte, parts ...[]byte) error {
	for {
		err := e.Transmit(hdr, parts)
		if !errors.Is(err, ErrFull) {
			return err
		}
		if err := e.Flush(); err != nil {
			return err
		}
		if err := e.TransmitWait(); err != nil {
			return err
		}
	}
}

// openFDs returns what the process has open.
func openFDs(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}
