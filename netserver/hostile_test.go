package netserver

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/ipc"
)

// hostileRing attaches an instance whose side of the rings the test has as raw
// memory and descriptors.
func (b *bench) hostileRing(id uint32) (mem []byte, bells [2]int) {
	pair, err := ipc.NewPair(ipc.Options{Buffers: 1024, BufferSize: 256})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = pair.Close() })
	theirs, err := pair.Attach(ipc.ServerSide)
	require.NoError(b.t, err)
	files := pair.Files(ipc.InstanceSide)
	var st unix.Stat_t
	require.NoError(b.t, unix.Fstat(files[0], &st))
	mem, err = unix.Mmap(files[0], 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { require.NoError(b.t, unix.Munmap(mem)) })
	require.NoError(b.t, b.Attach(Port{ID: id}, theirs))
	return mem, [2]int{files[1], files[2]}
}

// TestHostileRings: instances that write anything anywhere in their rings, as
// their bells ring, are found out by name. The others lose nothing.
func TestHostileRings(t *testing.T) {
	b := newBench(t)
	rng := rand.New(rand.NewPCG(1, 2))
	frame := out(dedicated4, peer4, protoUDP, udp(80, 9)).bytes()
	for id := range uint32(30) {
		mem, bells := b.hostileRing(100 + id)
		// Control words and descriptors are in the first pages.
		span := min(len(mem), 12<<10)
		found := false
		for n := 0; !found && n < 100_000; n++ {
			mem[rng.IntN(span)] = byte(rng.Uint32())
			_, _ = unix.Write(bells[n%2], []byte{1}) // a full one is as good
			select {
			case err := <-b.bad:
				require.ErrorIs(t, err, ipc.ErrPeer)
				found = true
			default:
			}
		}
		if !found { // its garbage has been right so far: index 0 moves back
			for i := range span {
				mem[i] = 0xff
			}
			_, _ = unix.Write(bells[0], []byte{1})
			select {
			case err := <-b.bad:
				require.ErrorIs(t, err, ipc.ErrPeer)
			case <-time.After(30 * time.Second):
				t.Fatal("not found out")
			}
		}
		require.NoError(t, b.Detach(100+id))
		b.send(3, frame)
		require.Equal(t, frame, b.nic.awaitSent(1)[0])
	}
	require.NotContains(t, b.Stats().Ports, uint32(100))
}

// TestSpoofingInstance: frames with another's addresses go nowhere, and are
// counted under what is wrong with them.
func TestSpoofingInstance(t *testing.T) {
	b := newBench(t)
	for _, f := range []frame{
		out(shared4, peer4, protoUDP, udp(80, 9)),
		out(dedicated4, peer4, protoUDP, udp(80, 9)),
		out(netip.MustParseAddr("198.18.0.99"), shared4, protoUDP, udp(80, 80)),
		{from: shared4, to: peer4, src: peerMAC, dst: ourMAC, proto: protoUDP, payload: udp(81, 9)},
	} {
		b.send(2, f.bytes())
	}
	b.send(2, arp(arpReply, ourMAC, dedicated4, peer4), []byte("fourteen bytes, and no more sense"))
	sentinel := out(shared4, peer4, protoUDP, udp(81, 9)).bytes()
	b.send(2, sentinel)
	require.Equal(t, [][]byte{sentinel}, b.nic.awaitSent(1))
	require.Eventually(t, func() bool { return b.Stats().Ports[2].Out == 1+questions }, 30*time.Second, time.Millisecond)
	require.Equal(t, map[string]uint64{"spoofed_port": 1, "spoofed_ip": 3, "spoofed_mac": 1, "ether_type": 1}, b.Stats().Ports[2].Drops)
}

// TestOffloadHeaders that no honest instance sends are refused; what is not an
// instance's to say is taken out.
func TestOffloadHeaders(t *testing.T) {
	s := &Server{opts: Options{Uplink: newFakeNIC()}, maxFrame: 1514}
	check := func(h [ipc.VnetHdrLen]byte, length int) reason { return s.checkOffload(&h, length) }
	require.Equal(t, dropNone, check([10]byte{}, 1514))
	require.Equal(t, dropLong, check([10]byte{}, 1515))
	require.Equal(t, dropVnet, check([10]byte{1: 3}, 100), "UDP fragmentation")
	require.Equal(t, dropVnet, check([10]byte{1: vnetGSOECN}, 100))
	require.Equal(t, dropNone, check([10]byte{0: 1, 1: vnetGSOTCPv4, 4: 200, 5: 5}, 9000), "segments that the server cuts")
	require.Equal(t, dropVnet, check([10]byte{0: 1, 1: vnetGSOTCPv4, 4: 200, 5: 5}, GSOMax+ethLen+1))
	require.Equal(t, dropVnet, check([10]byte{0: 1, 1: vnetGSOTCPv4, 4: 20}, 9000), "tiny ones")
	h := [10]byte{0: 0xff}
	require.Equal(t, dropNone, s.checkOffload(&h, 100))
	require.Equal(t, byte(vnetNeedsCsum), h[0])
}
