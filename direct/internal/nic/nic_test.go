package nic

import (
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// FuzzVnetHdr: any header survives a round trip, and one that Check lets pass
// points into the frame.
func FuzzVnetHdr(f *testing.F) {
	f.Add(make([]byte, VnetHdrLen), 60, true)
	f.Add([]byte{1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0}, 4000, true)
	f.Fuzz(func(t *testing.T, b []byte, n int, offloads bool) {
		if len(b) < VnetHdrLen {
			return
		}
		n &= 0xffff
		var h VnetHdr
		h.Parse((*[VnetHdrLen]byte)(b))
		var back [VnetHdrLen]byte
		h.Put(back[:])
		require.Equal(t, b[:VnetHdrLen], back[:])
		o := Offloads{TXChecksum: offloads}
		if offloads {
			o.GSOMax = 65536
		}
		if h.Check(n, o) != nil {
			return
		}
		require.LessOrEqual(t, int(h.HdrLen), n)
		if h.Flags&VnetNeedsCsum != 0 {
			require.True(t, offloads)
			require.LessOrEqual(t, int(h.CsumStart)+int(h.CsumOffset)+2, n)
		}
		if h.GSOType != GSONone && h.GSOType != GSOECN {
			require.True(t, offloads)
			require.NotZero(t, h.GSOSize)
		}
	})
}

func FuzzLinkNotification(f *testing.F) {
	f.Add([]byte{32, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 7)
	f.Fuzz(func(t *testing.T, b []byte, index int) {
		if deletes(b, index) {
			require.GreaterOrEqual(t, len(b), unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
		}
	})
}

func TestLinkNotification(t *testing.T) {
	b := []byte{32, 0, 0, 0, unix.RTM_DELLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	require.True(t, deletes(b, 7))
	require.False(t, deletes(b, 8))
	require.True(t, deletes(append(append([]byte{}, b...), b...), 7))
	b[4] = unix.RTM_NEWLINK
	require.False(t, deletes(b, 7))
}

func TestDeniedNamesTheCapability(t *testing.T) {
	err := Denied(unix.EACCES, "open it", "CAP_A", "CAP_B")
	require.ErrorIs(t, err, ErrPermission)
	require.ErrorContains(t, err, "open it: missing privilege: it needs CAP_A and CAP_B; run as root, or grant it with: setcap cap_a,cap_b+ep PROGRAM")
	require.ErrorIs(t, Denied(unix.EIO, "open it", "CAP_A"), unix.EIO)
	require.NotErrorIs(t, Denied(unix.EIO, "open it", "CAP_A"), ErrPermission)
	require.NoError(t, Denied(nil, "open it"))
}

// TestLifetime: waits, wakes and closes from many goroutines in any order.
func TestLifetime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l Lifetime
		require.NoError(t, l.Init())
		released := 0
		var all sync.WaitGroup
		for range rapid.IntRange(0, 1).Draw(t, "receivers") {
			all.Go(func() {
				for l.WaitRX(make([]unix.PollFd, 1)) == nil {
				}
			})
		}
		for range rapid.IntRange(0, 3).Draw(t, "waiters") {
			all.Go(func() {
				for l.WaitTX(make([]unix.PollFd, 1)) == nil {
				}
			})
		}
		for range rapid.IntRange(0, 5).Draw(t, "wakes") {
			l.Wake()
		}
		for range rapid.IntRange(1, 3).Draw(t, "closes") {
			l.Close(func() { released++ })
		}
		all.Wait()
		require.Equal(t, 1, released)
		require.True(t, l.Closed())
		l.Wake()
		if err := l.Enter(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("entered: %v", err)
		}
	})
}
