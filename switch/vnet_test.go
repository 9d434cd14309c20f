package modeswitch

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// vnetBuffer makes a received buffer of a vnet header and n bytes of frame.
func vnetBuffer(flags, gso uint8, hdrLen, gsoSize, start, off uint16, n int) []byte {
	b := make([]byte, VnetHdrLen+n)
	b[0], b[1] = flags, gso
	for i, v := range []uint16{hdrLen, gsoSize, start, off} {
		binary.LittleEndian.PutUint16(b[2+2*i:], v)
	}
	return b
}

func TestDecodeVnet(t *testing.T) {
	for _, c := range []struct {
		name string
		buf  []byte
		ok   bool
	}{
		{"empty", nil, false},
		{"header cut", make([]byte, VnetHdrLen-1), false},
		{"no frame", make([]byte, VnetHdrLen), true},
		{"plain", vnetBuffer(0, 0, 0, 0, 0, 0, 60), true},
		{"checked", vnetBuffer(vnetDataValid, 0, 0, 0, 9999, 9999, 60), true},
		{"partial", vnetBuffer(vnetNeedsCsum, 0, 0, 0, 34, 16, 54), true},
		{"partial in the Ethernet header", vnetBuffer(vnetNeedsCsum, 0, 0, 0, 13, 16, 54), false},
		{"partial, field past the end", vnetBuffer(vnetNeedsCsum, 0, 0, 0, 34, 19, 54), false},
		{"partial, sum overflows 16 bits", vnetBuffer(vnetNeedsCsum, 0, 0, 0, 65535, 65535, 54), false},
		{"TCPv4", vnetBuffer(vnetNeedsCsum, vnetGSOTCPv4, 54, 1448, 34, 16, 9000), true},
		{"TCPv6 with ECN", vnetBuffer(vnetNeedsCsum, vnetGSOTCPv6|vnetGSOECN, 74, 1428, 54, 16, 9000), true},
		{"segments of size 0", vnetBuffer(vnetNeedsCsum, vnetGSOTCPv4, 54, 0, 34, 16, 9000), false},
		{"headers longer than frame", vnetBuffer(vnetNeedsCsum, vnetGSOTCPv4, 9001, 1448, 34, 16, 9000), false},
		{"UDP segments", vnetBuffer(vnetNeedsCsum, 5, 42, 1448, 34, 6, 9000), false},
		{"ECN without segments", vnetBuffer(0, vnetGSOECN, 0, 0, 0, 0, 60), false},
	} {
		_, frame, ok := decodeVnet(c.buf)
		require.Equal(t, c.ok, ok, c.name)
		if ok {
			require.Len(t, frame, len(c.buf)-VnetHdrLen, c.name)
		}
	}
}

// Whatever is accepted points only inside the frame.
func TestDecodeVnetStaysInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buf := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "buf")
		h, frame, ok := decodeVnet(buf)
		if !ok {
			return
		}
		if h.flags&vnetNeedsCsum != 0 {
			_ = frame[int(h.csumStart)+int(h.csumOff)+1]
			require.GreaterOrEqual(t, h.csumStart, uint16(14))
		}
		if h.gsoType != 0 {
			_ = frame[:h.hdrLen]
			require.NotZero(t, h.gsoSize)
		}
	})
}
