package main

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"

	"junction/netserver"
)

func tapRecord(at time.Time, frame []byte) []byte {
	b := make([]byte, netserver.TapHeader)
	binary.LittleEndian.PutUint64(b, uint64(at.UnixNano()))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(frame)))
	binary.LittleEndian.PutUint64(b[16:], 7)
	return append(b, frame...)
}

func TestTranscribe(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789).UTC()
	frames := [][]byte{bytes.Repeat([]byte{1}, 60), bytes.Repeat([]byte{2}, 65000)}
	var in, out bytes.Buffer
	for _, f := range frames {
		in.Write(tapRecord(at, f))
	}
	var count captured
	require.NoError(t, transcribe(&in, &out, "web", &count))
	require.Equal(t, captured{Frames: 2, Lost: 7}, count)
	r, err := pcapgo.NewNgReader(&out, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	for _, f := range frames {
		got, info, err := r.ReadPacketData()
		require.NoError(t, err)
		require.Equal(t, f, got)
		require.True(t, at.Equal(info.Timestamp))
	}
}

func FuzzTranscribe(f *testing.F) {
	f.Add(tapRecord(time.Unix(1, 2), []byte("a frame")))
	f.Add(tapRecord(time.Unix(1, 2), nil)[:7])
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		_ = transcribe(bytes.NewReader(b), &out, "x", new(captured))
		require.LessOrEqual(t, out.Len(), 10*len(b)+1000)
	})
}
