package steer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/steer/scope"
)

// TestObjectIsOfItsSource: steer.o was compiled from steer.c as it is.
func TestObjectIsOfItsSource(t *testing.T) {
	source, err := os.ReadFile("bpf/steer.c")
	require.NoError(t, err)
	noted, err := os.ReadFile("bpf/steer.c.sha256")
	require.NoError(t, err)
	sum := sha256.Sum256(source)
	require.Equal(t, hex.EncodeToString(sum[:]), strings.Fields(string(noted))[0], "steer.c has changed: run go generate ./direct/steer")
}

// TestWhereFramesGo: with the owner steered, and with nothing; to a VF that is for all
// that it has, and to one that is for some ports.
func TestWhereFramesGo(t *testing.T) {
	b := newBench(t, 2)
	some, err := scope.Parse("9/udp,80")
	require.NoError(t, err)
	v, inst := b.newVF(owner)
	const server, vf = 0, 1
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	usual := spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, sport: clientPrt, dport: 9}
	with := func(change func(*spec)) spec {
		s := usual
		change(&s)
		return s
	}
	tag := uint64(0x5a5a0000)
	cases := map[string]struct {
		s         spec
		all, some int // where it goes when the owner is steered
	}{
		"dedicated UDP":           {usual, vf, vf},
		"dedicated TCP":           {with(func(s *spec) { s.proto = unix.IPPROTO_TCP }), vf, server},
		"dedicated other port":    {with(func(s *spec) { s.dport = 8 }), vf, server},
		"dedicated ICMP":          {with(func(s *spec) { s.proto = unix.IPPROTO_ICMP }), vf, server},
		"dedicated fragment":      {with(func(s *spec) { s.fragment = 0x2000 }), vf, server},
		"dedicated options":       {with(func(s *spec) { s.options = true }), vf, server},
		"dedicated IPv6":          {with(func(s *spec) { s.src, s.dst = client6, own6 }), vf, vf},
		"dedicated IPv6 ext":      {with(func(s *spec) { s.src, s.dst, s.options = client6, own6, true }), server, server},
		"dedicated IPv6 fragment": {with(func(s *spec) { s.src, s.dst, s.proto, s.icmpType = client6, own6, 44, unix.IPPROTO_UDP }), vf, server},
		"neighbour solicitation":  {with(func(s *spec) { s.src, s.dst, s.proto, s.icmpType = client6, own6, 58, 135 }), server, server},
		"IPv6 echo":               {with(func(s *spec) { s.src, s.dst, s.proto, s.icmpType = client6, own6, 58, 128 }), vf, server},
		"shared own port UDP":     {with(func(s *spec) { s.dst, s.dport = shared4, ownPort }), vf, vf},
		"shared own port TCP":     {with(func(s *spec) { s.dst, s.dport, s.proto = shared4, ownPort, unix.IPPROTO_TCP }), vf, vf},
		"shared own port IPv6":    {with(func(s *spec) { s.src, s.dst, s.dport = client6, shared6, ownPort }), vf, vf},
		"shared own other port":   {with(func(s *spec) { s.dst, s.dport = shared4, ownMore }), vf, server},
		"shared other's port":     {with(func(s *spec) { s.dst, s.dport = shared4, othersPort }), server, server},
		"shared nobody's port":    {with(func(s *spec) { s.dst, s.dport = shared4, 9 }), server, server},
		"shared fragment":         {with(func(s *spec) { s.dst, s.dport, s.fragment = shared4, ownPort, 0x2000 }), server, server},
		"shared further fragment": {with(func(s *spec) { s.dst, s.dport, s.fragment = shared4, ownPort, 100 }), server, server},
		"shared options":          {with(func(s *spec) { s.dst, s.dport, s.options = shared4, ownPort, true }), server, server},
		"shared IPv6 ext":         {with(func(s *spec) { s.src, s.dst, s.dport, s.options = client6, shared6, ownPort, true }), server, server},
		"shared ICMP":             {with(func(s *spec) { s.dst, s.proto = shared4, unix.IPPROTO_ICMP }), server, server},
		"other without VF":        {with(func(s *spec) { s.dst = others4 }), server, server},
		"nobody's address":        {with(func(s *spec) { s.dst = client4 }), server, server},
		"ARP":                     {with(func(s *spec) { s.ether = unix.ETH_P_ARP }), server, server},
		"VLAN":                    {with(func(s *spec) { s.ether = 0x88a8 }), server, server},
		"unknown protocol":        {with(func(s *spec) { s.ether = 0x88b5 }), server, server},
		"broadcast":               {with(func(s *spec) { s.dstMAC = broadcast }), server, server},
		"other station":           {with(func(s *spec) { s.dstMAC = b.peer }), server, server},
		"own source":              {with(func(s *spec) { s.srcMAC = b.mac }), server, server},
	}
	goes := func(t *testing.T, s spec, want int) {
		tag++
		s.tag = tag
		f := packet(s)
		b.send(f)
		a, ok := await(t, soon, tagged(tag), b.server, inst)
		require.True(t, ok, "the frame is lost")
		require.Equal(t, want, a.from)
		require.Equal(t, f, a.frame)
		_, stamped := direct.Stamp(a.hdr)
		require.False(t, stamped)
	}
	for name, c := range cases {
		require.NoError(t, b.Steer(owner, v))
		t.Run(name+"/all", func(t *testing.T) { goes(t, c.s, c.all) })
		require.NoError(t, b.Steer(owner, nil))
		t.Run(name+"/not steered", func(t *testing.T) { goes(t, c.s, server) })
	}
	require.NoError(t, v.Close())
	v, inst = b.newVFFor(owner, some)
	for name, c := range cases {
		require.NoError(t, b.Steer(owner, v))
		t.Run(name+"/some", func(t *testing.T) { goes(t, c.s, c.some) })
		require.NoError(t, b.Steer(owner, nil))
		t.Run(name+"/some, not steered", func(t *testing.T) { goes(t, c.s, server) })
	}
}

// TestStampsPutSwitchedFramesInOrder: while an owner is switched to and fro under
// way, each of its frames comes once, on one of the paths, and the stamps are
// their numbers.
func TestStampsPutSwitchedFramesInOrder(t *testing.T) {
	b := newBench(t, 1)
	v, inst := b.newVF(owner)
	require.NoError(t, b.Stamp(owner, 3))
	const frames = 5000
	window := make(chan struct{}, 200) // within what a veth and the rings hold
	go func() {
		for i := range uint64(frames) {
			window <- struct{}{}
			_, _ = unix.Write(b.wire, packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, sport: 1, dport: 9, tag: 0x77000000 + i}))
		}
	}()
	numbers, paths, flips := map[uint32]uint64{}, [2]int{}, 0
	mine := func(f []byte) bool { return len(f) >= 60 && tagOf(f)>>24 == 0x77 }
	for len(numbers) < frames {
		a, ok := await(t, soon, mine, b.server, inst)
		require.True(t, ok, "%d of %d frames came", len(numbers), frames)
		<-window
		stamp, ok := direct.Stamp(a.hdr)
		require.True(t, ok)
		require.Equal(t, uint32(3), stamp>>24)
		_, twice := numbers[stamp]
		require.False(t, twice, "stamp %d", stamp)
		numbers[stamp] = tagOf(a.frame)
		paths[a.from]++
		if len(numbers)%50 == 0 {
			to := v
			if flips%2 == 1 {
				to = nil
			}
			flips++
			require.NoError(t, b.Steer(owner, to))
		}
	}
	for stamp, tag := range numbers {
		require.Equal(t, tag-0x77000000+1, uint64(stamp&0xffffff))
	}
	t.Logf("%d flips, %d frames by the server, %d by the VF", flips, paths[0], paths[1])
	require.NotZero(t, paths[0])
	require.NotZero(t, paths[1])

	require.NoError(t, b.Stamp(owner, 0))
	require.NoError(t, b.Steer(owner, v))
	b.send(packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, tag: 0x78000000}))
	a, ok := await(t, soon, tagged(0x78000000), b.server, inst)
	require.True(t, ok)
	_, stamped := direct.Stamp(a.hdr)
	require.False(t, stamped)
}

func TestLimits(t *testing.T) {
	b := newBench(t, 2)
	ctx := context.Background()
	v, _ := b.newVF(owner)
	_, err := b.NewVF(ctx, owner, nil)
	require.ErrorIs(t, err, ErrNoVF)
	w, _ := b.newVF(other)
	_, err = b.NewVF(ctx, 9, nil)
	require.ErrorIs(t, err, ErrNoVF)
	require.ErrorContains(t, err, "--direct-queues")
	require.ErrorIs(t, b.Steer(owner, w), ErrNoVF)
	require.ErrorIs(t, b.Stamp(9, 1), ErrNoVF)
	require.NoError(t, b.Steer(9, nil))
	require.NoError(t, v.Close())
	require.NoError(t, v.Close())
	_, err = b.NewVF(ctx, 0, nil)
	require.Error(t, err)
	x, _ := b.newVF(9)
	require.NoError(t, b.Steer(9, x))
}

// TestRenew: the server's queues are replaced, after a user that left the rings in
// disorder; VFs and steering stay.
func TestRenew(t *testing.T) {
	b := newBench(t, 1)
	v, inst := b.newVF(owner)
	require.NoError(t, b.Steer(owner, v))
	e, files := b.Export()
	ring, err := unix.Mmap(files[0], unix.XDP_UMEM_PGOFF_FILL_RING, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	for i := range 512 / 4 { // producer, consumer and what is around them
		binary.NativeEndian.PutUint32(ring[4*i:], uint32(i)<<24+7)
	}
	require.NoError(t, unix.Munmap(ring))
	require.NoError(t, b.server.Close())
	_, err = direct.Adopt(e, duplicates(t, files), direct.AdoptOptions{})
	require.ErrorIs(t, err, direct.ErrGeometry)

	require.NoError(t, b.Renew(context.Background()))
	b.server = b.adopt(b.Export())
	for want, dst := range []netip.Addr{shared4, own4} {
		tag := uint64(0x51000000 + want)
		b.send(packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: dst, dport: 9, tag: tag}))
		a, ok := await(t, soon, tagged(tag), b.server, inst)
		require.True(t, ok)
		require.Equal(t, want, a.from)
	}
}

// TestAfterClose: who still has a VF or the uplink is told so.
func TestAfterClose(t *testing.T) {
	b := newBench(t, 1)
	v, _ := b.newVF(owner)
	require.NoError(t, b.Uplink.Close())
	require.NoError(t, b.Uplink.Close())
	_, err := v.Stats()
	require.Error(t, err)
	require.Error(t, v.Probe(make([]byte, 60)))
	require.NoError(t, v.Close())
	_, err = b.NewVF(context.Background(), other, nil)
	require.ErrorIs(t, err, ErrNoVF)
	require.ErrorIs(t, b.Stamp(owner, 1), ErrNoVF)
	require.ErrorIs(t, b.Steer(owner, v), ErrNoVF)
	require.Nil(t, b.Of(owner))
	require.Empty(t, b.VFs())
}

// TestProbe: a frame of the monitor's reaches the instance through the VF.
func TestProbe(t *testing.T) {
	b := newBench(t, 1)
	v, inst := b.newVF(owner)
	for tag := uint64(0x50000001); tag < 0x50000004; tag++ {
		f := packet(spec{dstMAC: b.mac, srcMAC: b.mac, ether: 0x88b5, tag: tag})
		require.NoError(t, v.Probe(f))
		a, ok := await(t, soon, tagged(tag), inst)
		require.True(t, ok)
		require.Equal(t, f, a.frame)
	}
	require.NoError(t, v.Close())
	require.ErrorIs(t, v.Probe(make([]byte, 60)), unix.ENXIO, "what tells that the queue is lost")
}

// TestProbeOfDeleted: a VF whose device somebody has deleted says so, also when it
// has been probed before.
func TestProbeOfDeleted(t *testing.T) {
	b := newBench(t, 1)
	v, _ := b.newVF(owner)
	require.NoError(t, v.Probe(make([]byte, 60)))
	l, err := netlink.LinkByIndex(v.pair.outer)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkDel(l))
	require.ErrorIs(t, v.Probe(make([]byte, 60)), unix.ENXIO)
}

// TestProbeLost: a device that has no room for a probe has lost it, as it may lose any
// frame; that is no error.
func TestProbeLost(t *testing.T) {
	b := newBench(t, 1)
	v, inst := b.newVF(owner)
	const rate, room = 1e6, 4000
	full := &netlink.Tbf{ // has room for a byte
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: v.pair.outer, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate, Limit: 1, Buffer: netlink.Xmittime(rate, room),
	}
	require.NoError(t, netlink.QdiscAdd(full))
	frame := packet(spec{dstMAC: b.mac, srcMAC: b.mac, ether: 0x88b5, tag: 1})
	require.NoError(t, v.Probe(frame))
	require.NoError(t, netlink.QdiscDel(full))
	require.NoError(t, v.Probe(packet(spec{dstMAC: b.mac, srcMAC: b.mac, ether: 0x88b5, tag: 2})))
	a, ok := await(t, soon, func(f []byte) bool { return len(f) >= 60 && (tagOf(f) == 1 || tagOf(f) == 2) }, inst)
	require.True(t, ok)
	require.EqualValues(t, 2, tagOf(a.frame), "the first was lost")
}

// TestProbeIsLast: behind a probe nothing comes that was steered before.
func TestProbeIsLast(t *testing.T) {
	b := newBench(t, 1)
	v, inst := b.newVF(owner)
	sender := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(sender)
		f := packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, sport: 1, dport: 9, tag: 0x51000000})
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = unix.Write(b.wire, f) // what overflows is lost
			}
		}
	}()
	defer func() { close(stop); <-sender }()
	ours := func(f []byte) bool {
		return len(f) >= 60 && tagOf(f)>>24 == 0x51 || len(f) >= 60 && tagOf(f)>>24 == 0x52
	}
	seen, probes := 0, 0
	for n := uint64(0x52000000); n < 0x52000000+50; n++ {
		require.NoError(t, b.Steer(owner, v))
		_, ok := await(t, soon, tagged(0x51000000), inst)
		require.True(t, ok)
		require.NoError(t, b.Steer(owner, nil))
		Await()
		require.NoError(t, v.Probe(packet(spec{dstMAC: b.mac, srcMAC: b.mac, ether: 0x88b5, tag: n})))
		last := false
		for { // what comes, to when nothing has for a while
			a, ok := await(t, time.Millisecond, ours, inst)
			if !ok {
				break
			}
			if tagOf(a.frame) == n {
				last = true
				continue
			}
			require.False(t, last, "a frame came behind probe %d", n-0x52000000)
			seen++
		}
		if last { // else the device has dropped it, among so many
			probes++
		}
	}
	t.Logf("%d frames before %d probes", seen, probes)
	require.NotZero(t, probes)
}

// TestNothingIsLeft: VFs come and go; then everything is as it was.
func TestNothingIsLeft(t *testing.T) {
	b := newBench(t, 3)
	v, inst := b.newVF(owner)
	_ = v.Close()
	_ = inst.Close()
	before := holdings(t)
	for range 30 {
		v, err := b.NewVF(context.Background(), owner, nil)
		require.NoError(t, err)
		d := b.adopt(v.Export())
		require.NoError(t, b.Steer(owner, v))
		require.NoError(t, v.Close())
		require.NoError(t, d.Close())
	}
	// The kernel frees some of it a little later. In this thread, whose namespace it is.
	for end := time.Now().Add(soon); holdings(t).exceeds(before) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	require.False(t, holdings(t).exceeds(before), "%+v, more than %+v", holdings(t), before)
}

// holding counts what a process and its network namespace have.
type holding struct{ links, files, programs int }

// exceeds tells whether something is left. Less there may be: what other tests
// had is collected at some time.
func (h holding) exceeds(before holding) bool {
	return h.links > before.links || h.files > before.files || h.programs > before.programs
}

func holdings(t testing.TB) (h holding) {
	t.Helper()
	links, err := netlink.LinkList()
	require.NoError(t, err)
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	h.links, h.files = len(links), len(files)
	// Others on this machine have programs, too, but none in this namespace.
	for _, l := range links {
		if l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached {
			h.programs++
		}
	}
	return h
}

// TestSweep: the devices of a monitor that died are deleted by the next.
func TestSweep(t *testing.T) {
	b := newBench(t, 1)
	l := b.nic.Link()
	_, err := newPair(l, 5, 1500)
	require.NoError(t, err)
	before := len(links(t))
	require.NoError(t, b.sweepBut(nil))
	require.Len(t, links(t), before-2)
}

func links(t testing.TB) []netlink.Link {
	t.Helper()
	all, err := netlink.LinkList()
	require.NoError(t, err)
	return all
}
