package tap

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const event = "add@/devices/virtual/net/jx5/tap7\x00ACTION=add\x00DEVPATH=/x\x00SUBSYSTEM=macvtap\x00MAJOR=243\x00MINOR=9\x00DEVNAME=tap7\x00"

func TestUevent(t *testing.T) {
	dev, ok := parseUevent([]byte(event), "tap7")
	require.True(t, ok)
	require.Equal(t, unix.Mkdev(243, 9), dev)
	_, ok = parseUevent([]byte(event), "tap8")
	require.False(t, ok)
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte(event))
	f.Add([]byte("\x00=\x00MAJOR=99999999999999999999\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if dev, ok := parseUevent(b, "tap7"); ok {
			require.Less(t, unix.Major(dev), uint32(1<<12))
			require.Less(t, unix.Minor(dev), uint32(1<<20))
		}
	})
}

func TestRandomMAC(t *testing.T) {
	a, b := randomMAC(), randomMAC()
	require.NotEqual(t, a, b)
	require.Equal(t, byte(2), a[0]&3, "unicast, locally administered")
}
