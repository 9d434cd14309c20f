package steer

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"

	"junction/direct/steer/scope"
)

// BenchmarkPrograms is what one frame costs in the programs alone, as the kernel
// runs them for a test: for the server, into a VF, and out of one.
func BenchmarkPrograms(b *testing.B) {
	x := newBench(b, 2) // a place for loopback among the outer ends
	const loopback = 1  // where the kernel takes test frames to come from
	require.NoError(b, x.objects.Outers.Put(uint32(loopback), [2]uint32{0, owner}))
	v, _ := x.newVF(owner)
	in := packet(spec{dstMAC: x.mac, srcMAC: x.peer, src: client4, dst: shared4, dport: ownPort})
	out := packet(spec{dstMAC: x.peer, srcMAC: x.mac, src: shared4, dst: client4, sport: ownPort})
	run := func(name string, p *ebpf.Program, frame []byte, to *VF) {
		b.Run(name, func(b *testing.B) {
			require.NoError(b, x.Steer(owner, to))
			_, err := p.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(b.N)})
			require.NoError(b, err)
		})
	}
	for _, c := range []struct {
		name  string
		p     *ebpf.Program
		frame []byte
		to    *VF
	}{
		{"nobody", x.objects.Steer, packet(spec{dstMAC: x.mac, srcMAC: x.peer, ether: 0x88b5}), nil},
		{"server", x.objects.Steer, in, nil}, {"VF", x.objects.Steer, in, v}, {"egress", x.objects.Egress, out, nil},
	} {
		run(c.name, c.p, c.frame, c.to)
	}
	require.NoError(b, v.Close())
	some, err := scope.Parse("80")
	require.NoError(b, err)
	v, _ = x.newVFFor(owner, some)
	run("VF for some ports", x.objects.Steer, in, v)
	run("server for others", x.objects.Steer, packet(spec{dstMAC: x.mac, srcMAC: x.peer, src: client4, dst: shared4, dport: ownMore}), v)
}
