package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// mapForTest maps two pages at a program's address: one that can be written,
// and one that can be read.
func mapForTest(t *testing.T) hostarch.Addr {
	const at = 0x2000_0000_0000
	fd, err := unix.MemfdCreate("io", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Ftruncate(fd, 2*pageSize))
	for i, prot := range []uintptr{unix.PROT_READ | unix.PROT_WRITE, unix.PROT_READ} {
		_, _, errno := unix.Syscall6(unix.SYS_MMAP, at+uintptr(i*pageSize), pageSize, prot, unix.MAP_SHARED|unix.MAP_FIXED_NOREPLACE, uintptr(fd), uintptr(i*pageSize))
		require.Zero(t, errno)
	}
	t.Cleanup(func() { munmap(hostarch.AddrRange{Start: at, End: at + 2*pageSize}) })
	return at
}

// The libOS uses a program's memory in place only if it is the program's and
// there, and says what is missing.
func TestAccess(t *testing.T) {
	at := mapForTest(t)
	as := newAddressSpace(nil)
	_, err := as.CopyOut(at, []byte("x"))
	require.Equal(t, anotherWay, err, "it is not in this process")

	as.here.Store(true)
	n, err := as.CopyOut(at+pageSize-3, []byte("abc"))
	require.NoError(t, err)
	require.Equal(t, 3, n)
	back := make([]byte, 5)
	n, err = as.CopyIn(at+pageSize-3, back)
	require.NoError(t, err)
	require.Equal(t, "abc\x00\x00", string(back[:n]))

	n, err = as.CopyOut(at+pageSize-2, []byte("12345"))
	require.Equal(t, platform.SegmentationFault{Addr: at + pageSize}, err, "the second page cannot be written")
	require.Equal(t, 2, n)
	_, err = as.CopyIn(at+2*pageSize, back)
	require.Equal(t, platform.SegmentationFault{Addr: at + 2*pageSize}, err, "nothing is mapped")
	as.patches.pages = map[hostarch.Addr]*patchedPage{at + 2*pageSize: {}}
	_, err = as.CopyIn(at+2*pageSize, back)
	require.Equal(t, anotherWay, err, "text that cannot be read")
	defer func(saved bool) { copiesHidden = saved }(copiesHidden)
	copiesHidden = false
	as.patches.pages = map[hostarch.Addr]*patchedPage{at: {}}
	_, err = as.CopyIn(at+pageSize-3, back)
	require.Equal(t, anotherWay, err, "text that can be read, with the jumps")
	_, err = as.CopyIn(at+pageSize, back)
	require.NoError(t, err)
	as.patches.pages = nil

	old, err := as.SwapUint32(at, 7)
	require.NoError(t, err)
	require.Zero(t, old)
	prev, err := as.CompareAndSwapUint32(at, 7, 8)
	require.NoError(t, err)
	require.EqualValues(t, 7, prev)
	v, err := as.LoadUint32(at)
	require.NoError(t, err)
	require.EqualValues(t, 8, v)
	_, err = as.SwapUint32(at+pageSize, 7)
	require.Equal(t, platform.SegmentationFault{Addr: at + pageSize}, err)
	zeroed, err := as.ZeroOut(at, pageSize)
	require.NoError(t, err)
	require.EqualValues(t, pageSize, zeroed)

	defer func(r []hostarch.AddrRange) { hostRanges = r }(hostRanges)
	hostRanges = []hostarch.AddrRange{{Start: at + 8, End: at + 16}}
	_, err = as.CopyOut(at, make([]byte, 9))
	require.Equal(t, anotherWay, err, "the host's own memory")
	for _, addr := range []hostarch.Addr{maxUserAddress - 1, ^hostarch.Addr(0)} {
		_, err = as.CopyIn(addr, back)
		require.Equal(t, anotherWay, err, "beyond what programs may have")
	}
	require.True(t, as.io.TryLock(), "held for ever")
}

func BenchmarkCopyIn(b *testing.B) {
	const at = 0x2000_0000_0000
	_, _, errno := unix.Syscall6(unix.SYS_MMAP, at, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
	require.Zero(b, errno)
	defer munmap(hostarch.AddrRange{Start: at, End: at + pageSize})
	as := newAddressSpace(nil)
	as.here.Store(true)
	dst := make([]byte, 64)
	b.ReportAllocs()
	for range b.N {
		if _, err := as.CopyIn(at, dst); err != nil {
			b.Fatal(err)
		}
	}
}
