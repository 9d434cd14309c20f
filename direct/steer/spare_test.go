package steer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/direct/afxdp"
)

// awaitSpare waits until there is memory for the next VF.
func (b *bench) awaitSpare() (m *afxdp.Memory) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		b.spare.mu.Lock()
		defer b.spare.mu.Unlock()
		m = b.spare.memory
		return m != nil
	}, time.Minute, time.Millisecond, "no memory for the next VF")
	return m
}

func umemOf(t *testing.T, v *VF) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(v.sock.Files()[1], &st))
	return st
}

// umems are the numbers of the umems that this process has open.
func umems(t *testing.T) (all []uint64) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, f := range files {
		name := filepath.Join("/proc/self/fd", f.Name())
		if to, err := os.Readlink(name); err != nil || !strings.Contains(to, "memfd:junction_umem") {
			continue // another file, or closed meanwhile
		}
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			all = append(all, st.Ino)
		}
	}
	return all
}

// TestSpareIsTheNextVFs: after a VF there is memory for the next one, which nobody else
// has had, and frames come there.
func TestSpareIsTheNextVFs(t *testing.T) {
	b := newBench(t, 2)
	require.Nil(t, b.spare.take(), "who needs no VF needs no memory")
	before := map[uint64]bool{}
	for tag := range uint64(3) {
		v, inst := b.newVF(owner)
		st := umemOf(t, v)
		require.False(t, before[st.Ino], "it has been another's")
		before[st.Ino] = true
		require.NoError(t, b.Steer(owner, v))
		b.send(packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, tag: 0x55000000 + tag}))
		a, ok := await(t, soon, tagged(0x55000000+tag), b.server, inst)
		require.True(t, ok, "the frame is lost")
		require.Equal(t, 1, a.from)
		m := b.awaitSpare()
		require.NoError(t, v.Close())
		require.Same(t, m, b.awaitSpare(), "one is enough")
	}
	require.NoError(t, b.Uplink.Close())
	require.Nil(t, b.spare.take(), "left over")
	b.spare.refill(1500)
	b.spare.tasks.Wait()
	require.Nil(t, b.spare.take(), "after the end")
}

// TestSpareEndsWithTheUplink: also when it is being got.
func TestSpareEndsWithTheUplink(t *testing.T) {
	for _, after := range []time.Duration{0, beforeSpare, beforeSpare + 3*betweenPieces} {
		b := newBench(t, 1)
		_, _ = b.newVF(owner)
		time.Sleep(after) // somewhere on its way
		require.NoError(t, b.Uplink.Close())
		b.spare.mu.Lock()
		require.Nil(t, b.spare.stop, "somebody still gets memory")
		require.Nil(t, b.spare.memory)
		b.spare.mu.Unlock()
	}
}

// TestSpareOfAVFThatFails: it goes with the VF.
func TestSpareOfAVFThatFails(t *testing.T) {
	b := newBench(t, 1)
	before := umems(t)
	v, err := b.NewVF(t.Context(), owner, nil)
	require.NoError(t, err)
	require.NoError(t, v.Close())
	b.awaitSpare()
	require.NotSubset(t, before, umems(t), "a spare is a file more")
	owners := b.objects.Owners
	closed, err := owners.Clone()
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	b.objects.Owners = closed // so that the last step fails
	v, err = b.reserve(owner, nil)
	require.NoError(t, err)
	require.Error(t, v.make(t.Context()))
	b.objects.Owners = owners
	require.NoError(t, v.Close())
	require.Subset(t, before, umems(t), "left over")
}
