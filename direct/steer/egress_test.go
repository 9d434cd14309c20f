package steer

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/direct"
)

// TestEgress: what is the instance's own goes onto the wire, the rest is counted
// under its name, and nothing gets to the host's stack. So it is by the outlet and
// through the pair.
func TestEgress(t *testing.T) {
	for _, noOutlet := range []bool{false, true} {
		t.Run(fmt.Sprintf("no outlet %v", noOutlet), func(t *testing.T) {
			testEgress(t, newBenchWith(t, Options{Options: direct.Options{NoOutlet: noOutlet}, VFs: 2}))
		})
	}
}

func testEgress(t *testing.T, b *bench) {
	v, inst := b.newVF(owner)
	mine := spec{dstMAC: b.peer, srcMAC: b.mac, src: own4, dst: client4, sport: 5, dport: 6}
	with := func(change func(*spec)) spec {
		s := mine
		change(&s)
		return s
	}
	tag := uint64(0x60000000)
	for name, c := range map[string]struct {
		s    spec
		drop string
	}{
		"dedicated":          {mine, ""},
		"dedicated IPv6":     {with(func(s *spec) { s.src, s.dst = own6, client6 }), ""},
		"dedicated ICMP":     {with(func(s *spec) { s.proto = unix.IPPROTO_ICMP }), ""},
		"dedicated fragment": {with(func(s *spec) { s.fragment = 77 }), ""},
		"shared port":        {with(func(s *spec) { s.src, s.sport = shared4, ownPort }), ""},
		"shared port TCP":    {with(func(s *spec) { s.src, s.sport, s.proto = shared4, ownPort, unix.IPPROTO_TCP }), ""},
		"another's MAC":      {with(func(s *spec) { s.srcMAC = b.peer }), "spoofed_mac"},
		"another's address":  {with(func(s *spec) { s.src = others4 }), "spoofed_ip"},
		"nobody's address":   {with(func(s *spec) { s.src = client4 }), "spoofed_ip"},
		"another's port":     {with(func(s *spec) { s.src, s.sport = shared4, othersPort }), "spoofed_port"},
		"nobody's port":      {with(func(s *spec) { s.src, s.sport = shared4, 9999 }), "spoofed_port"},
		"shared fragment":    {with(func(s *spec) { s.src, s.sport, s.fragment = shared4, ownPort, 0x2000 }), "not_direct"},
		"shared ICMP":        {with(func(s *spec) { s.src, s.proto = shared4, unix.IPPROTO_ICMP }), "not_direct"},
		"advertisement":      {with(func(s *spec) { s.src, s.dst, s.proto, s.icmpType = own6, client6, 58, 136 }), "not_direct"},
		"behind options":     {with(func(s *spec) { s.src, s.dst, s.proto, s.icmpType = own6, client6, 60, 58 }), "not_direct"},
		"IPv6 fragment":      {with(func(s *spec) { s.src, s.dst, s.proto, s.icmpType = own6, client6, 44, 17 }), ""},
		"fragment of ICMPv6": {with(func(s *spec) { s.src, s.dst, s.proto, s.icmpType = own6, client6, 44, 58 }), "not_direct"},
		"ARP":                {with(func(s *spec) { s.ether = unix.ETH_P_ARP }), "not_direct"},
		"group":              {with(func(s *spec) { s.dstMAC = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1} }), "not_direct"},
		"to a local one":     {with(func(s *spec) { s.dstMAC = b.mac }), "not_direct"},
		"VLAN":               {with(func(s *spec) { s.ether = unix.ETH_P_8021Q }), "not_direct"},
		"own in a VLAN":      {with(func(s *spec) { s.vlan = 5 }), "not_direct"},
		"own in two VLANs":   {with(func(s *spec) { s.vlan, s.outerVLAN = 5, 6 }), "not_direct"},
	} {
		{
			before, err := v.Stats()
			require.NoError(t, err)
			tag++
			c.s.tag = tag
			f := packet(c.s)
			q := inst.Queues()[0]
			require.NoError(t, q.Transmit(nil, [][]byte{f}))
			require.NoError(t, q.Flush())
			if c.drop == "" {
				got, ok := b.fromWire(soon, tagged(tag))
				require.True(t, ok, "the frame is lost")
				require.Equal(t, f, got)
			}
			require.Eventually(t, func() bool {
				s, err := v.Stats()
				require.NoError(t, err)
				if c.drop == "" {
					return s.Out == before.Out+1 && s.OutBytes == before.OutBytes+uint64(len(f))
				}
				return s.Out == before.Out && s.Drops[c.drop] == before.Drops[c.drop]+1
			}, soon, time.Millisecond, name)
		}
	}
	_, leaked := b.fromWire(0, func(f []byte) bool { return len(f) >= 60 && tagOf(f)>>24 == 0x60 })
	require.False(t, leaked, "a frame that was dropped is on the wire")
}

// tcp makes a TCP packet with n bytes of payload that ends with the tag, and the
// virtio_net_hdr for segments of size bytes.
func tcp(s spec, n, size int) (*[direct.VnetHdrLen]byte, []byte) {
	s.proto = unix.IPPROTO_TCP
	f := packet(s)
	l4 := len(f) - 32
	f = append(append(f[:l4+20:l4+20], make([]byte, n-8)...), f[len(f)-8:]...)
	f[l4+12] = 5 << 4
	if s.src.Is4() {
		binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	} else {
		binary.BigEndian.PutUint16(f[18:], uint16(len(f)-54))
	}
	h := [direct.VnetHdrLen]byte{0: 1, 1: 1, 2: byte(l4 + 20), 6: byte(l4), 8: 16}
	if s.src.Is6() {
		h[1] = 4
	}
	binary.LittleEndian.PutUint16(h[4:], uint16(size))
	return &h, f
}

// TestOutletsSegments: whole TCP packets of the instance's own go onto the wire as
// they are, if what they are to be cut into fits there; a hostile instance, which
// writes to the outlet itself, gets no others out.
func TestOutletsSegments(t *testing.T) {
	b := newBench(t, 1)
	v, inst := b.newVF(owner)
	require.Equal(t, direct.Outlet("all"), inst.Mode().Outlet)
	_, files := v.Export()
	outlet := files[2]
	tag := uint64(0x61000000)
	mine := spec{dstMAC: b.peer, srcMAC: b.mac, src: own4, dst: client4, sport: 5, dport: 6}
	with := func(change func(*spec)) spec {
		s := mine
		change(&s)
		return s
	}
	const most = 1500 - 40
	sum := func(start, offset byte) func(h, f []byte) {
		return func(h, f []byte) { h[1], h[6], h[8] = 0, start, offset }
	}
	for name, c := range map[string]struct {
		s       spec
		n, size int
		change  func(h, f []byte)
		drop    string
	}{
		"own":               {s: mine, n: 60000, size: most},
		"small segments":    {s: mine, n: 5000, size: 100},
		"IPv6":              {s: with(func(s *spec) { s.src, s.dst = own6, client6 }), n: 60000, size: most - 20},
		"shared port":       {s: with(func(s *spec) { s.src, s.sport = shared4, ownPort }), n: 60000, size: most},
		"another's port":    {s: with(func(s *spec) { s.src, s.sport = shared4, othersPort }), n: 60000, size: most, drop: "spoofed_port"},
		"another's":         {s: with(func(s *spec) { s.src = others4 }), n: 60000, size: most, drop: "spoofed_ip"},
		"segments too long": {s: mine, n: 60000, size: most + 1, drop: "too_long"},
		"IPv6 too long":     {s: with(func(s *spec) { s.src, s.dst = own6, client6 }), n: 60000, size: most - 19, drop: "too_long"},
		"options too long":  {s: mine, n: 60000, size: most, change: func(h, f []byte) { f[46] = 6 << 4; h[2] += 4 }, drop: "too_long"},
		"tiny segments":     {s: mine, n: 60000, size: 27, drop: "too_long"},
		"not to be cut":     {s: mine, n: 2000, size: most, change: func(h, f []byte) { h[1], h[4], h[5] = 0, 0, 0 }, drop: "too_long"},
		"IP options":        {s: mine, n: 60000, size: most, change: func(h, f []byte) { f[14] = 0x46 }, drop: "too_long"},
		"one":               {s: mine, n: 100, change: sum(34, 16)},
		"one IPv6":          {s: with(func(s *spec) { s.src, s.dst = own6, client6 }), n: 100, change: sum(54, 16)},
		"complete":          {s: mine, n: 100, change: func(h, f []byte) { h[0], h[1] = 0, 0 }},
		"sum in payload":    {s: mine, n: 100, change: sum(34, 30)},
		"sum in address":    {s: mine, n: 100, change: sum(20, 6), drop: "spoofed_ip"},
		"sum in IPv6":       {s: with(func(s *spec) { s.src, s.dst = own6, client6 }), n: 100, change: sum(34, 2), drop: "spoofed_ip"},
		"sum in port":       {s: with(func(s *spec) { s.src, s.sport = shared4, ownPort }), n: 100, change: sum(34, 0), drop: "spoofed_ip"},
		"sum in a fragment": {s: with(func(s *spec) { s.fragment = 77 }), n: 100, change: sum(34, 16), drop: "spoofed_ip"},
	} {
		before, err := v.Stats()
		require.NoError(t, err)
		tag++
		c.s.tag = tag
		h, f := tcp(c.s, c.n, c.size)
		if c.change != nil {
			c.change(h[:], f)
		}
		_, err = unix.Write(outlet, append(h[:], f...))
		require.NoError(t, err, name)
		if c.drop == "" {
			got, ok := b.fromWire(soon, func(f []byte) bool { return len(f) >= 60 && tagOf(f) == tag })
			require.True(t, ok, "%s is lost", name)
			require.Equal(t, len(f), len(got), name)
		}
		after, err := v.Stats() // a write to a TAP has done all when it returns
		require.NoError(t, err)
		if c.drop == "" {
			require.Equal(t, before.Out+1, after.Out, name)
			require.Equal(t, before.OutBytes+uint64(len(f)), after.OutBytes, name)
		} else {
			require.Equal(t, before.Out, after.Out, name)
			require.Equal(t, before.Drops[c.drop]+1, after.Drops[c.drop], "%s: %v", name, after.Drops)
		}
	}
}

// sumHere has checksums written before frames get onto the wire, as a NIC's hardware
// does, where a veth leaves that to whoever reads them.
func (b *bench) sumHere() {
	b.t.Helper()
	e, err := ethtool.NewEthtool()
	require.NoError(b.t, err)
	defer e.Close()
	require.NoError(b.t, e.Change(nicName, map[string]bool{"tx-checksum-ip-generic": false}))
}

// TestOutletIsGuarded: of random frames with random headers none gets onto the wire
// that is not the instance's own, and the host's stack gets none at all.
func TestOutletIsGuarded(t *testing.T) {
	b := newBench(t, 1)
	b.sumHere()
	v, _ := b.newVF(owner)
	_, files := v.Export()
	rng := rand.New(rand.NewPCG(5, 6))
	sources := []spec{{src: own4, dst: client4}, {src: others4, dst: client4}, {src: shared4, dst: client4, sport: ownPort}, {src: shared4, dst: client4, sport: othersPort}}
	allowed := map[string]bool{string(own4.AsSlice()): true, string(shared4.AsSlice()): true}
	taken := uint64(0)
	for range 3000 {
		s := sources[rng.IntN(len(sources))]
		s.dstMAC, s.srcMAC, s.tag = b.peer, b.mac, 0x62000000
		h, f := tcp(s, 8+rng.IntN(6000), 1+rng.IntN(3000))
		for range rng.IntN(4) {
			h[rng.IntN(len(h))] = byte(rng.Uint32())
		}
		if rng.IntN(4) == 0 { // one whose checksum is to be written somewhere into its headers
			h[1], h[6], h[8] = 0, byte(20+rng.IntN(15)), byte(rng.IntN(32))
		}
		if rng.IntN(2) == 0 {
			f[12+rng.IntN(min(len(f)-12, 60))] = byte(rng.Uint32())
		}
		if _, err := unix.Write(files[2], append(h[:], f...)); err == nil {
			taken++
		}
	}
	stats, err := v.Stats()
	require.NoError(t, err)
	sum := stats.Out
	for _, n := range stats.Drops {
		sum += n
	}
	require.Equal(t, taken, sum, "each frame that the kernel took has been decided on: %+v", stats)
	require.NotZero(t, stats.Out)
	for left := stats.Out; left > 0; {
		f, ok := b.fromWire(time.Second, func([]byte) bool { return true })
		if !ok {
			break // what cannot be cut is dropped behind the program
		}
		if net.HardwareAddr(f[6:12]).String() != b.mac.String() || binary.BigEndian.Uint16(f[12:]) != unix.ETH_P_IP {
			continue
		}
		left--
		require.True(t, allowed[string(f[26:30])], "source %v", net.IP(f[26:30]))
		if string(f[26:30]) == string(shared4.AsSlice()) {
			require.EqualValues(t, ownPort, binary.BigEndian.Uint16(f[34:]))
		}
	}
}
