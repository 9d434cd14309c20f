package netserver

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"pgregory.net/rapid"

	"junction/direct"
	"junction/ipc"
)

// wireWorker is an instance's worker with a NIC that offers no segmentation, and
// checksums only if told so.
func wireWorker(t testing.TB, csum bool) (*worker, *wire) {
	_, p := forwarding(t)
	out := &wire{}
	p.work.s.offloads = direct.Offloads{TXChecksum: csum}
	p.work.s.uplinks[0].q = out
	return p.work, out
}

// wire takes frames down, with their headers.
type wire struct {
	sinkhole
	frames [][]byte
	hdrs   [][ipc.VnetHdrLen]byte
}

func (w *wire) Transmit(hdr *[10]byte, parts [][]byte) error {
	w.frames = append(w.frames, slices.Concat(parts...))
	w.hdrs = append(w.hdrs, *hdr)
	return nil
}

// segmentOf is a TCP packet of an instance with n bytes, as it leaves a stack
// that knows of segmentation: header and frame.
func segmentOf(t *rapid.T, n int) (hdr [ipc.VnetHdrLen]byte, b []byte, mss int) {
	from, to, kind := shared4, peer4, byte(vnetGSOTCPv4)
	if rapid.Bool().Draw(t, "v6") {
		from, to, kind = shared6, peer6, vnetGSOTCPv6
	}
	mss = rapid.IntRange(minSegment, 1400).Draw(t, "mss")
	options := 4 * rapid.IntRange(0, 10).Draw(t, "options")
	s := append(tcp(80, 5, header.TCPFlags(rapid.Byte().Draw(t, "flags"))), make([]byte, options+n)...)
	s[12] = byte(20+options) / 4 << 4
	for i := range n {
		s[20+options+i] = byte(i*7 + i>>8)
	}
	f := out(from, to, protoTCP, s)
	b = f.bytes()
	l4 := len(b) - len(s)
	src, dst := tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice())
	header.TCP(b[l4:]).SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(s))))
	hdr = [ipc.VnetHdrLen]byte{0: vnetNeedsCsum, 1: kind}
	binary.LittleEndian.PutUint16(hdr[4:], uint16(mss))
	binary.LittleEndian.PutUint16(hdr[6:], uint16(l4))
	binary.LittleEndian.PutUint16(hdr[8:], tcpChecksum)
	return hdr, b, mss
}

// asView splits a frame as a ring does that goes round somewhere.
func asView(hdr [ipc.VnetHdrLen]byte, b []byte, cut int) ipc.View {
	n := min(len(b), headLen)
	v := ipc.View{Head: append(append([]byte{}, hdr[:]...), b[:n]...)}
	rest := b[n:]
	cut = min(cut, len(rest))
	v.Tail[0], v.Tail[1] = rest[:cut], rest[cut:]
	return v
}

// TestCut: segments on the wire are, put together, the packet; each is right by
// itself, with its checksum or as the NIC needs it.
func TestCut(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		csum := rapid.Bool().Draw(r, "checksums by the NIC")
		w, nic := wireWorker(t, csum)
		n := rapid.IntRange(0, 60000).Draw(r, "bytes")
		hdr, b, mss := segmentOf(r, n)
		v := asView(hdr, b, rapid.IntRange(0, n).Draw(r, "cut"))
		w.begin()
		w.fromRing(&v)
		w.end(false)
		a := w.account()
		require.Empty(t, a.Drops())
		require.EqualValues(t, max(1, (n+mss-1)/mss), a.Out)
		require.EqualValues(t, a.In+a.Made, a.Out)

		whole, data := parsed(t, b), []byte(nil)
		first := header.TCP(b[whole.ip.l4:])
		for i, f := range nic.frames {
			p := parsed(t, f)
			require.Equal(t, len(f), p.ip.end)
			s := header.TCP(f[p.ip.l4:])
			require.Equal(t, first.SequenceNumber()+uint32(len(data)), s.SequenceNumber())
			payload := s[s.DataOffset():]
			require.LessOrEqual(t, len(payload), mss)
			data = append(data, payload...)
			flags := uint8(first.Flags())
			if i > 0 {
				flags &^= flagCWR
			}
			if i < len(nic.frames)-1 {
				flags &^= flagFin | flagPush
			}
			require.Equal(t, flags, uint8(s.Flags()))
			require.Equal(t, first.Options(), s.Options())
			checkSegment(t, p, f, nic.hdrs[i], csum)
		}
		require.Equal(t, string(b[len(b)-n:]), string(data))
	})
}

// checkSegment checks checksums and what names a packet.
func checkSegment(t *testing.T, p *packet, f []byte, hdr [ipc.VnetHdrLen]byte, csum bool) {
	t.Helper()
	src, dst := tcpip.AddrFromSlice(p.ip.src.Addr().AsSlice()), tcpip.AddrFromSlice(p.ip.dst.Addr().AsSlice())
	s := header.TCP(f[p.ip.l4:])
	if !p.ip.v6 {
		require.True(t, header.IPv4(f[ethLen:]).IsChecksumValid())
	}
	if csum { // what a NIC does
		require.Equal(t, [ipc.VnetHdrLen]byte{0: vnetNeedsCsum, 6: byte(p.ip.l4), 8: tcpChecksum}, hdr)
		s.SetChecksum(^checksum.Checksum(s, 0))
	} else {
		require.Zero(t, hdr)
	}
	payload := s[s.DataOffset():]
	require.True(t, s.IsChecksumValid(src, dst, checksum.Checksum(payload, 0), uint16(len(payload))))
}

// TestChecksumElsewhere: a checksum that somebody else is to write never goes over
// what has been checked, whether the NIC or the server writes it.
func TestChecksumElsewhere(t *testing.T) {
	for _, csum := range []bool{false, true} {
		for what, at := range map[string][2]byte{
			"source address": {14, 12}, "source port": {34, 0}, "source MAC": {0, 6}, "payload": {34, 22}, "half way": {33, 17},
		} {
			w, nic := wireWorker(t, csum)
			b := out(shared4, peer4, protoTCP, append(tcp(80, 5, 0), make([]byte, 50)...)).bytes()
			for _, h := range [][ipc.VnetHdrLen]byte{{0: vnetNeedsCsum, 6: 34, 8: tcpChecksum}, {0: vnetNeedsCsum, 6: at[0], 8: at[1]}} {
				v := asView(h, b, 0)
				w.begin()
				w.fromRing(&v)
				w.end(false)
			}
			require.Len(t, nic.frames, 1, "%s, checksums by the NIC %v", what, csum)
			a := w.account()
			require.Equal(t, map[string]uint64{"bad_offload": 1}, a.Drops(), what)
		}
	}
}

// TestChecksums: partial ones are completed for a NIC that does not.
func TestChecksums(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w, nic := wireWorker(t, false)
		n := rapid.IntRange(0, 1400).Draw(r, "bytes")
		hdr, b, _ := segmentOf(r, n)
		hdr[1], hdr[4], hdr[5] = 0, 0, 0
		v := asView(hdr, b, rapid.IntRange(0, n).Draw(r, "cut"))
		w.begin()
		w.fromRing(&v)
		w.end(false)
		require.Len(t, nic.frames, 1)
		checkSegment(t, parsed(t, b), nic.frames[0], nic.hdrs[0], false)
		hdr[6]++ // not where the checksum is
		v = asView(hdr, b, 0)
		w.begin()
		w.fromRing(&v)
		w.end(false)
		a := w.account()
		require.Equal(t, map[string]uint64{"bad_offload": 1}, a.Drops())
	})
}

// FuzzCut: whatever an instance asks for, nothing larger than the MTU leaves, and
// every frame is accounted for.
func FuzzCut(f *testing.F) {
	f.Add([]byte{1, 1, 0, 0, 100, 0, 34, 0, 16, 0}, out(shared4, peer4, protoTCP, tcp(80, 5, header.TCPFlagAck)).bytes(), 3000, true)
	f.Add([]byte{1, 4, 0, 0, 100, 5, 54, 0, 16, 0}, out(shared6, peer6, protoTCP, tcp(80, 5, header.TCPFlagAck)).bytes(), 60000, false)
	f.Add([]byte{1, 0, 0, 0, 0, 0, 34, 0, 6, 0}, out(shared4, peer4, protoUDP, udp(80, 5)).bytes(), 3, false)
	f.Fuzz(func(t *testing.T, hdr, b []byte, more int, csum bool) {
		w, nic := wireWorker(t, csum)
		var h [ipc.VnetHdrLen]byte
		copy(h[:], hdr)
		b = append(slices.Clone(b[:min(len(b), ipc.MaxFrame)]), make([]byte, min(max(more, 0), 1<<16))...)
		if len(b) > ethLen+ip6Len { // its length is right
			binary.BigEndian.PutUint16(b[16:], uint16(len(b)-ethLen))
			if b[12] == 0x86 {
				binary.BigEndian.PutUint16(b[18:], uint16(len(b)-ethLen-ip6Len))
			}
		}
		v := asView(h, b, len(b)/2)
		w.begin()
		w.fromRing(&v)
		w.end(false)
		a := w.account()
		drops := uint64(0)
		for _, n := range a.Drops() {
			drops += n
		}
		require.Equal(t, a.In+a.Made, a.Out+a.Answered+drops)
		for i, f := range nic.frames {
			require.LessOrEqual(t, len(f), w.s.maxFrame)
			require.Zero(t, nic.hdrs[i][1])
		}
	})
}

func BenchmarkCut(b *testing.B) {
	w, _ := wireWorker(b, true)
	w.s.uplinks[0].q = sinkhole{}
	var v ipc.View
	rapid.Check(b, func(t *rapid.T) {
		hdr, f, _ := segmentOf(t, 60000)
		binary.LittleEndian.PutUint16(hdr[4:], 1400)
		v = asView(hdr, f, 30000)
	})
	b.SetBytes(60000)
	b.ReportAllocs()
	b.ResetTimer()
	batches(w, b.N, func() { w.fromRing(&v) })
}
