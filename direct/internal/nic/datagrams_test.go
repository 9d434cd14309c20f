package nic

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzDatagrams: whatever the frame, the datagrams' payloads are its own, in
// order, none longer than said.
func FuzzDatagrams(f *testing.F) {
	v4 := append(make([]byte, VnetHdrLen+EthHdrLen), 0x45)
	v4[1], v4[4], v4[VnetHdrLen+12] = gsoUDP, 7, 8
	f.Add(append(v4, make([]byte, 100)...))
	v6 := make([]byte, VnetHdrLen+EthHdrLen+ipv6Len+udpLen+50)
	v6[1], v6[4], v6[VnetHdrLen+12] = gsoUDP, 50, 0x86
	f.Add(v6)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < VnetHdrLen || len(b) > VnetHdrLen+MaxFrame {
			return
		}
		var d datagrams
		if !d.begin(b) {
			require.False(t, d.left())
			return
		}
		data, out := d.l4+udpLen, make([]byte, fileBuffer)
		var got []byte
		for d.left() {
			n := d.next(out)
			require.Greater(t, n, VnetHdrLen+data)
			require.LessOrEqual(t, n, VnetHdrLen+data+d.size)
			require.Zero(t, out[1], "nothing more to cut")
			got = append(got, out[VnetHdrLen+data:n]...)
		}
		require.Equal(t, b[VnetHdrLen+data:], got)
	})
}
