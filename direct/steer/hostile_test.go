package steer

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hostile is an instance that does to its queue whatever it can.
type hostile struct {
	socket int
	memory [][]byte // rings and umem
	rng    *rand.Rand
}

func newHostile(t *testing.T, v *VF) *hostile {
	t.Helper()
	e, files := v.Export()
	h := &hostile{socket: files[0], rng: rand.New(rand.NewPCG(3, 4))}
	g := e.Queues[0]
	const page = 4096
	add := func(fd int, at int64, size int) {
		m, err := unix.Mmap(fd, at, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		h.memory = append(h.memory, m)
		t.Cleanup(func() { _ = unix.Munmap(m) })
	}
	add(files[1], 0, int(g.Chunk*(g.RXChunks+g.TXChunks)))
	for at, entries := range map[int64]int{
		unix.XDP_PGOFF_RX_RING: int(g.RXChunks) * 16, unix.XDP_PGOFF_TX_RING: int(g.TXChunks) * 16,
		unix.XDP_UMEM_PGOFF_FILL_RING: int(g.RXChunks) * 8, unix.XDP_UMEM_PGOFF_COMPLETION_RING: int(g.TXChunks) * 8,
	} {
		add(files[0], at, (entries+page-1)/page*page)
	}
	return h
}

// rage does one thing.
func (h *hostile) rage() {
	m := h.memory[h.rng.IntN(len(h.memory))]
	switch at := h.rng.IntN(len(m)/8) * 8; h.rng.IntN(8) {
	case 0: // an index, most likely
		at = h.rng.IntN(64) * 8
		fallthrough
	case 1:
		binary.NativeEndian.PutUint32(m[at:], h.rng.Uint32())
	case 2:
		binary.NativeEndian.PutUint64(m[at:], h.rng.Uint64())
	case 3: // an address that is one
		binary.NativeEndian.PutUint64(m[at:], uint64(h.rng.IntN(5<<20)))
	case 4, 5:
		_, _, _ = unix.Syscall6(unix.SYS_SENDTO, uintptr(h.socket), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	case 6:
		_, _, _ = unix.Syscall6(unix.SYS_RECVFROM, uintptr(h.socket), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	case 7:
		_ = unix.SetsockoptInt(h.socket, unix.SOL_XDP, h.rng.IntN(12), h.rng.IntN(4096))
	}
}

// TestHostileInstance: one instance writes into its rings and its umem what it
// likes, and sends. Frames of another and of the server come whole and in order,
// nothing of the hostile one's gets out under another's name, and its VF ends as
// any other does.
func TestHostileInstance(t *testing.T) {
	b := newBench(t, 2)
	v, _ := b.newVF(owner)
	require.NoError(t, b.Steer(owner, v))
	w, victim := b.newVF(other)
	require.NoError(t, b.Steer(other, w))
	h := newHostile(t, v)
	var over atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer over.Store(true)
	deeds := 0
	wg.Go(func() {
		for ; !over.Load(); deeds++ {
			h.rage()
		}
	})
	const server, vf = 0, 1
	for i := range uint64(2000) {
		to, want := others4, vf
		if i%2 == 0 {
			to, want = shared4, server
		}
		tag := 0x20000000 + i
		f := packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: to, sport: 1, dport: 9, tag: tag})
		b.send(packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, dport: 9, tag: 1})) // for the hostile one
		b.send(f)
		a, ok := await(t, soon, tagged(tag), b.server, victim)
		require.True(t, ok, "frame %d is lost", i)
		require.Equal(t, want, a.from)
		require.Equal(t, f, a.frame)
		if want == vf {
			out := packet(spec{dstMAC: b.peer, srcMAC: b.mac, src: others4, dst: client4, tag: tag})
			require.NoError(t, victim.Queues()[0].Transmit(nil, [][]byte{out}))
			require.NoError(t, victim.Queues()[0].Flush())
			got, ok := b.fromWire(soon, tagged(tag))
			require.True(t, ok)
			require.Equal(t, out, got)
		}
	}
	over.Store(true)
	wg.Wait()
	t.Log(deeds, "deeds")
	require.NoError(t, v.Close())
	stats, err := w.Stats()
	require.NoError(t, err)
	require.EqualValues(t, 1000, stats.In)
	require.EqualValues(t, 1000, stats.Out)
	require.Empty(t, stats.Drops)
}
