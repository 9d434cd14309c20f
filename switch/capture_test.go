package modeswitch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// readPcap returns the frames of a capture, checking the format on the way.
func readPcap(t *testing.T, b []byte) [][]byte {
	t.Helper()
	le := binary.LittleEndian
	require.Equal(t, []byte{0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0}, b[:8])
	require.Equal(t, uint32(1), le.Uint32(b[20:]))
	var frames [][]byte
	for b = b[24:]; len(b) > 0; {
		at := time.Unix(int64(le.Uint32(b)), int64(le.Uint32(b[4:])))
		require.WithinDuration(t, time.Now(), at, time.Hour)
		n := le.Uint32(b[8:])
		require.LessOrEqual(t, n, uint32(pcapSnapLen))
		require.GreaterOrEqual(t, le.Uint32(b[12:]), n)
		frames = append(frames, b[16:16+n])
		b = b[16+n:]
	}
	return frames
}

func TestCapture(t *testing.T) {
	var file bytes.Buffer
	c, err := NewCapture(&file)
	require.NoError(t, err)
	h := newHost(t, false)
	h.ep.opts.Capture = c
	cuts(&h.ep.first.backend)
	h.ep.first.gso = true
	in := udpFrame(10)
	require.NoError(t, h.wire.Inject(vnet(0, in)))
	h.settle(t, 1)
	pkt := outgoing(h.ep, tcpGSO(1000), bytes.Repeat([]byte{1}, 60000), []byte("end"))
	defer pkt.DecRef()
	require.Nil(t, h.ep.QDisc().WritePacket(pkt))
	require.NoError(t, c.Err())
	frames := readPcap(t, file.Bytes())
	require.Equal(t, in, frames[0])
	last := frames[len(frames)-1]
	require.Len(t, last, 54+60003)
	require.True(t, bytes.HasSuffix(last, []byte("end")))

	c.frame(make([]byte, pcapSnapLen+1))
	require.Len(t, readPcap(t, file.Bytes())[len(frames)], pcapSnapLen)
}

// fullDisk takes n bytes.
type fullDisk struct{ n int }

var errFull = errors.New("no space left on device")

func (d *fullDisk) Write(b []byte) (int, error) {
	if len(b) > d.n {
		return 0, errFull
	}
	d.n -= len(b)
	return len(b), nil
}

// A capture that cannot be written ends; the packets go on.
func TestCaptureFullDisk(t *testing.T) {
	_, err := NewCapture(&fullDisk{})
	require.ErrorIs(t, err, errFull)

	c, err := NewCapture(&fullDisk{n: 24})
	require.NoError(t, err)
	ep, wire := wireEndpoint(t, nil)
	ep.opts.Capture = c
	pkt := outgoing(ep, stack.GSO{}, []byte{1})
	defer pkt.DecRef()
	for range 2 {
		require.Nil(t, ep.QDisc().WritePacket(pkt))
	}
	require.ErrorIs(t, c.Err(), errFull)
	receiveMany(t, wire, 2)
}
