package netserver

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// record reads one record of a capture.
func record(t *testing.T, r io.Reader) (to byte, frame []byte) {
	t.Helper()
	header := make([]byte, TapHeader)
	_, err := io.ReadFull(r, header)
	require.NoError(t, err)
	at := time.Unix(0, int64(binary.LittleEndian.Uint64(header)))
	require.WithinDuration(t, time.Now(), at, time.Minute)
	frame = make([]byte, binary.LittleEndian.Uint32(header[8:]))
	_, err = io.ReadFull(r, frame)
	require.NoError(t, err)
	return header[12], frame
}

func TestCapture(t *testing.T) {
	b := newBench(t)
	pipe := func() (*os.File, *os.File) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.Close() })
		return r, w
	}
	up, w := pipe()
	require.NoError(t, b.Capture(0, w))
	three, w := pipe()
	require.NoError(t, b.Capture(3, w))
	_, w = pipe()
	require.ErrorIs(t, b.Capture(3, w), ErrCaptured)
	idle, w := pipe()
	require.NoError(t, b.Capture(1, w))
	require.NoError(t, idle.Close()) // no frame shows it
	_, w = pipe()
	require.NoError(t, b.Capture(1, w))
	_, w = pipe()
	require.ErrorIs(t, b.Capture(77, w), ErrPort)

	toThree := in(peer4, dedicated4, protoUDP, udp(5, 9, make([]byte, 1400)...)).bytes()
	b.nic.arrive(toThree)
	b.receive(3)
	fromThree := out(dedicated4, peer4, protoUDP, udp(9, 5, make([]byte, 900)...)).bytes()
	b.send(3, fromThree)
	for _, c := range []struct {
		r         io.Reader
		first, to byte
	}{{up, 0, 0}, {three, 1, 1}} {
		to, frame := record(t, c.r)
		require.Equal(t, c.to, to)
		require.Equal(t, toThree, frame)
		to, frame = record(t, c.r)
		require.Equal(t, 1-c.to, to)
		require.Equal(t, fromThree, frame)
	}

	// Whoever looks no more is let go, and another may look.
	require.NoError(t, up.Close())
	require.Eventually(t, func() bool {
		b.nic.arrive(toThree)
		b.receive(3)
		_, w := pipe()
		return !errors.Is(b.Capture(0, w), ErrCaptured)
	}, 30*time.Second, time.Millisecond)
	// The capture of an instance ends with it.
	require.NoError(t, b.Detach(3))
	_, err := io.Copy(io.Discard, three)
	require.NoError(t, err)
}

// ending is the output of a capture that ends just when it is looked at.
type ending struct {
	io.Writer
	point *tapPoint
}

func (e ending) SyscallConn() (syscall.RawConn, error) {
	e.point.Store(nil)
	return nil, net.ErrClosed
}

// TestCaptureEndsMeanwhile: who comes just when another capture ends is not refused.
func TestCaptureEndsMeanwhile(t *testing.T) {
	var p tapPoint
	require.True(t, p.put(&tap{w: ending{point: &p}}))
	next := &tap{w: io.Discard}
	require.True(t, p.put(next))
	require.Same(t, next, p.Load())
	require.False(t, p.put(&tap{w: io.Discard}), "it is read, as far as is known")
}
