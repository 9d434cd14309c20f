package afxdp

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const testMTU, testRX = 1500, 16 << 20

func noPause() error { return nil }

// TestMemoryIsThere: all pages, by pieces, before a Socket has it, and zeros.
func TestMemoryIsThere(t *testing.T) {
	pieces := 0
	m, err := NewMemory(testMTU, testRX, func() error { pieces++; return nil })
	require.NoError(t, err)
	defer m.Close()
	require.EqualValues(t, testRX+txChunks*smallChunk, m.size)
	require.EqualValues(t, (m.size+hugePage-1)/hugePage, pieces)
	require.Zero(t, uintptr(m.mem.addr)%hugePage)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(m.file.Fd()), &st))
	require.GreaterOrEqual(t, st.Blocks*512, int64(m.size), "pages are missing")
	for i, b := range m.mem.bytes() {
		if b != 0 {
			require.Zero(t, b, "byte %d", i)
		}
	}
	require.NoError(t, m.Close())
	require.NoError(t, m.Close(), "once more")
}

// TestMemoryInterrupted: who gets it may lose patience at each piece.
func TestMemoryInterrupted(t *testing.T) {
	enough := errors.New("enough")
	for last := range 9 {
		pieces := 0
		m, err := NewMemory(testMTU, testRX, func() error {
			if pieces++; pieces > last {
				return enough
			}
			return nil
		})
		require.ErrorIs(t, err, enough)
		require.Nil(t, m)
	}
}

// TestMemoryOfASocket: what is of its size becomes the umem; else it gets its own.
func TestMemoryOfASocket(t *testing.T) {
	for name, rx := range map[string]uint32{"fits": testRX, "of another size": testRX / 2} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			s := &Socket{Geometry: geometryFor(testMTU, testRX), socket: os.NewFile(uintptr(fd), "AF_XDP")}
			defer s.Close()
			m, err := NewMemory(testMTU, rx, noPause)
			require.NoError(t, err)
			defer m.Close()
			file := m.file
			require.NoError(t, s.setUpMemory(fd, m))
			require.Equal(t, rx == testRX, s.umem == file)
			require.Equal(t, rx == testRX, m.file == nil, "who closes it")
			require.NoError(t, checkFiles(fd, int(s.umem.Fd()), &s.Geometry))
		})
	}
}
