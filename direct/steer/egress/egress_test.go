package egress

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/direct/steer/scope"
)

// FuzzByVF: whatever a program sends, the decision is made; what may not leave from
// a dedicated address may not from a shared one; with a list of ports, what may leave
// could without, and only from one of them. What is right is tested against the
// kernel's program in package steer.
func FuzzByVF(f *testing.F) {
	f.Add(append(make([]byte, 12), 0x08, 0x00, 0x45))
	f.Add(append(make([]byte, 12), 0x86, 0xdd, 0x60))
	f.Add(tcp4(80))
	some, err := scope.Parse("80,443/udp")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, head []byte) {
		dedicated, shared := Rules{MAC: [6]byte{2}}, Rules{MAC: [6]byte{2}, Shared: true}
		if shared.ByVF(head) {
			require.True(t, dedicated.ByVF(head))
		}
		for _, r := range []Rules{dedicated, shared} {
			listed := r
			listed.Ports = some
			if !listed.ByVF(head) {
				continue
			}
			require.True(t, r.ByVF(head))
			at := 34 // of the ports, behind Ethernet and IP
			if head[12] == 0x86 {
				at = 54
			}
			require.Contains(t, []uint16{80, 443}, binary.BigEndian.Uint16(head[at:]))
		}
	})
}

func TestByVFAllocatesNothing(t *testing.T) {
	head := tcp4(80)
	some, err := scope.Parse("80")
	require.NoError(t, err)
	for _, r := range []Rules{{MAC: [6]byte{2}, Shared: true}, {MAC: [6]byte{2}, Ports: some}} {
		require.True(t, r.ByVF(head))
		require.Zero(t, testing.AllocsPerRun(100, func() { r.ByVF(head) }))
	}
}

// BenchmarkByVF is what the decision costs a sender for each packet.
func BenchmarkByVF(b *testing.B) {
	head := tcp4(80)
	some, err := scope.Parse("80,443")
	require.NoError(b, err)
	for name, r := range map[string]Rules{"all": {MAC: [6]byte{2}, Shared: true}, "some": {MAC: [6]byte{2}, Shared: true, Ports: some}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.ByVF(head)
			}
		})
	}
}

// tcp4 is the beginning of a frame from a port below 256.
func tcp4(port byte) []byte {
	head := make([]byte, 58)
	head[12], head[14], head[23], head[35] = 0x08, 0x45, protoTCP, port
	return head
}
