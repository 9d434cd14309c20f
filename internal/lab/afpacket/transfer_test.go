package afpacket

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// FuzzAuxdata parses any control messages.
func FuzzAuxdata(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{36, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 8, 0, 0, 0}, make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, oob []byte) {
		if aux, ok := auxdata(oob); ok {
			require.GreaterOrEqual(t, len(aux), auxLen)
			_ = vlanTag(aux, unix.TP_STATUS_VLAN_TPID_VALID)
		}
	})
}

// FuzzInsertTag puts a tag into any frame; taking it out again gives the frame.
func FuzzInsertTag(f *testing.F) {
	f.Add([]byte("aaaaaabbbbbbcc"), false)
	f.Add([]byte("vvvvvvvvvvaaaaaabbbbbbcc"), true)
	f.Add([]byte("short"), true)
	f.Fuzz(func(t *testing.T, frame []byte, vnet bool) {
		tag := [vlanTagLen]byte{0x81, 0, 0, 5}
		buf := append(bytes.Clone(frame), make([]byte, vlanTagLen)...)
		n := insertTag(buf, len(frame), vnet, tag)
		at := addressesLen
		if vnet {
			at += vnetHdrLen
		}
		if len(frame) < at {
			require.Equal(t, frame, buf[:n])
			return
		}
		require.Equal(t, tag[:], buf[at:at+vlanTagLen])
		require.Equal(t, frame, append(bytes.Clone(buf[:at]), buf[at+vlanTagLen:n]...))
	})
}
