package steer

import (
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"junction/direct"
	"junction/direct/steer/egress"
	"junction/direct/steer/scope"
)

const tcShot, tcRedirect = 2, 7 // linux/pkt_cls.h

// TestInstanceAndProgramAgree: of frames with the instance's own addresses and
// ports, the program lets through exactly those that egress.ByVF says are for the
// VF; no other frame passes, whatever it is.
func TestInstanceAndProgramAgree(t *testing.T) {
	b := newBench(t, 1)
	const ifindex = 1 // loopback, which the kernel takes test frames to come from
	require.NoError(t, b.objects.Outers.Put(uint32(ifindex), [2]uint32{0, owner}))
	run := func(t require.TestingT, f []byte) uint32 {
		ret, err := b.objects.Egress.Run(&ebpf.RunOptions{Data: f})
		require.NoError(t, err)
		return ret
	}
	passed, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		s := spec{
			dstMAC: rapid.SampledFrom([]net.HardwareAddr{b.peer, b.peer, b.peer, b.mac, {1, 0, 0x5e, 0, 0, 1}}).Draw(t, "to"), srcMAC: b.mac,
			src: own4, dst: client4, sport: ownPort, dport: 9,
			proto:    rapid.SampledFrom([]byte{6, 17, 1, 58, 47, 60, 44}).Draw(t, "proto"),
			fragment: rapid.SampledFrom([]uint16{0, 0, 0, 0x4000, 0x2000, 1}).Draw(t, "fragment"),
			options:  rapid.IntRange(0, 3).Draw(t, "options") == 0,
			icmpType: byte(rapid.SampledFrom([]int{0, 128, 133, 135, 136, 137, 138}).Draw(t, "icmp")),
			ether:    rapid.SampledFrom([]uint16{0, 0, 0, 0, 0x806, 0x8100}).Draw(t, "ether"),
		}
		switch s.proto {
		case 58:
		case 44, 60: // of what is behind the extension header
			s.icmpType = rapid.SampledFrom([]byte{6, 17, 58, 60}).Draw(t, "behind")
		default:
			s.icmpType = 0
		}
		shared := rapid.Bool().Draw(t, "shared")
		if shared {
			s.src = shared4
		}
		if rapid.Bool().Draw(t, "v6") {
			s.src, s.dst = own6, client6
			if shared {
				s.src = shared6
			}
		}
		f := packet(s)
		f = f[:rapid.SampledFrom([]int{len(f), len(f), len(f), 56, 54}).Draw(t, "length")] // the kernel tests with no less
		want := uint32(tcShot)
		rules := egress.Rules{MAC: [6]byte(b.mac), Shared: shared}
		if rules.ByVF(f[:min(58, len(f))]) {
			want = tcRedirect
			passed++
		} else {
			refused++
		}
		require.Equal(t, want, run(t, f), "%x", f)
		// With one bit of its source changed it is not the sender's own.
		at := rapid.IntRange(6, 11).Draw(t, "at")
		f[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		require.Equal(t, uint32(tcShot), run(t, f))
	})
	require.NotZero(t, passed)
	require.NotZero(t, refused)
}

// TestAFlowHasOnePath: with a VF for some ports, whatever the list, a packet from the
// wire goes into the VF exactly if the answer to it may leave by it; while the owner is
// stamped, exactly these packets have stamps; and no list sends more that way than none.
func TestAFlowHasOnePath(t *testing.T) {
	b := newBench(t, 1)
	tag, toVF, byServer := uint64(0x61000000), 0, 0
	rapid.Check(t, func(t *rapid.T) {
		ports, err := scope.Parse(rapid.SampledFrom([]string{"80", "80/tcp", "80/udp,82/tcp", "82", "1-79,81-65535", "1-65535", "40000"}).Draw(t, "ports"))
		require.NoError(t, err)
		v, inst := b.newVFFor(owner, ports)
		defer v.Close()
		defer inst.Close()
		require.NoError(t, b.Steer(owner, v))
		require.NoError(t, b.Stamp(owner, 1))
		for range 20 {
			in := spec{
				dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, sport: clientPrt,
				dport:    rapid.SampledFrom([]uint16{ownPort, ownMore}).Draw(t, "port"),
				proto:    rapid.SampledFrom([]byte{6, 6, 17, 17, 1, 47, 60}).Draw(t, "proto"),
				fragment: rapid.SampledFrom([]uint16{0, 0, 0, 0x4000, 0x2000, 1}).Draw(t, "fragment"),
				options:  rapid.IntRange(0, 5).Draw(t, "options") == 0,
			}
			shared := rapid.Bool().Draw(t, "shared")
			if shared {
				in.dst = shared4
			}
			if rapid.Bool().Draw(t, "v6") {
				in.src, in.dst = client6, own6
				if shared {
					in.dst = shared6
				}
			}
			out := in
			out.dstMAC, out.srcMAC, out.src, out.dst, out.sport, out.dport = b.peer, b.mac, in.dst, in.src, in.dport, in.sport
			rules := egress.Rules{MAC: [6]byte(b.mac), Shared: shared, Ports: ports}
			byVF := rules.ByVF(packet(out))
			rules.Ports = nil
			require.False(t, byVF && !rules.ByVF(packet(out)))
			tag++
			in.tag = tag
			b.send(packet(in))
			a, ok := await(b.t, soon, tagged(tag), b.server, inst)
			require.True(t, ok, "the frame is lost")
			require.Equal(t, byVF, a.from == 1, "%+v", in)
			_, stamped := direct.Stamp(a.hdr)
			require.Equal(t, byVF, stamped)
			if byVF {
				toVF++
			} else {
				byServer++
			}
		}
	})
	require.NotZero(t, toVF)
	require.NotZero(t, byServer)
}
