package steer

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/internal/outlet"
	"junction/direct/steer/scope"
	"junction/portmap/table"
)

// die is the end of the process that has the uplink: files close, devices stay.
func (b *bench) die() {
	b.t.Helper()
	for _, v := range b.VFs() {
		require.NoError(b.t, v.sock.Close())
		require.NoError(b.t, v.inner.Close())
		if v.outlet != nil {
			v.outlet.Release()
		}
	}
	require.NoError(b.t, unix.Munmap(b.mem))
	b.objects.close()
	require.NoError(b.t, b.nic.Close())
	require.NoError(b.t, b.maps.Close())
	require.NoError(b.t, b.writer.Close())
}

// kept is what the network server holds.
func (b *bench) kept() (direct.Export, []int) {
	b.t.Helper()
	e, queues := b.Export()
	text, err := json.Marshal(e) // as it goes from process to process
	require.NoError(b.t, err)
	var same direct.Export
	require.NoError(b.t, json.Unmarshal(text, &same))
	return same, duplicates(b.t, append(b.Keep(), queues...))
}

// takeOver is the successor's beginning.
func (b *bench) takeOver(e direct.Export, kept []int) *Uplink {
	b.t.Helper()
	u, err := TakeOver(context.Background(), Options{}, e, kept)
	require.NoError(b.t, err)
	b.Uplink = u
	b.t.Cleanup(func() { _ = u.Close() })
	b.maps = u.Tables()
	b.writer, err = table.NewWriter(u.Tables().Geometry, u.Tables())
	require.NoError(b.t, err)
	w := b.writer
	b.t.Cleanup(func() { _ = w.Close() })
	return u
}

// TestTakeOverOutlet: an outlet stays when all who have its files are gone, and is the
// successor's; that one has been deleted the successor tells from that none was made.
func TestTakeOverOutlet(t *testing.T) {
	for _, c := range []struct {
		name             string
		none, deleted    bool
		devices, outlets int
	}{
		{"kept", false, false, 3, 1}, {"deleted", false, true, 3, 0}, {"none", true, false, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBenchWith(t, Options{VFs: 1, Options: direct.Options{NoOutlet: c.none}})
			v, inst := b.newVF(owner)
			require.NoError(t, b.Steer(owner, v))
			e, kept := b.kept()
			b.die()
			require.NoError(t, inst.Close())
			if c.deleted {
				l, err := netlink.LinkByIndex(v.outlet.Index)
				require.NoError(t, err)
				require.NoError(t, netlink.LinkDel(l))
			}
			u := b.takeOver(e, kept)
			devices, outlets := u.Of(owner).Devices(), 0
			require.Len(t, devices, c.devices)
			require.Equal(t, c.deleted, slices.Contains(devices, 0))
			for _, name := range names(t) {
				if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, outletSuffix) {
					outlets++
				}
			}
			require.Equal(t, c.outlets, outlets)
			require.NoError(t, u.Close())
			for _, name := range names(t) {
				require.NotContains(t, name, prefix)
			}
		})
	}
}

// TestTakeOver: the process with the uplink dies; frames go on to both sides, and
// its successor steers them, knows the VFs, makes further ones, and leaves nothing
// at its end.
func TestTakeOver(t *testing.T) {
	b := newBench(t, 3)
	some, err := scope.Parse("9/udp")
	require.NoError(t, err)
	v, inst := b.newVFFor(owner, some)
	require.NoError(t, b.Steer(owner, v))
	orphan, err := newPair(b.nic.Link(), 2, 1500) // of a VF in the making
	require.NoError(t, err)
	lost := &VF{u: b.Uplink, slot: 2}
	o, err := outlet.New(b.nic.Link(), lost.outletName(), 1, b.objects.Egress)
	require.NoError(t, err)
	defer o.Release()
	tag, dport := uint64(0x30000000), uint16(9)
	arrives := func(want int, devices ...direct.Device) {
		t.Helper()
		tag++
		b.send(packet(spec{dstMAC: b.mac, srcMAC: b.peer, src: client4, dst: own4, dport: dport, tag: tag}))
		a, ok := await(t, soon, tagged(tag), devices...)
		require.True(t, ok, "the frame is lost")
		require.Equal(t, want, a.from)
	}
	leaves := func(d direct.Device) {
		t.Helper()
		tag++
		require.NoError(t, d.Queues()[0].Transmit(nil, [][]byte{packet(spec{dstMAC: b.peer, srcMAC: b.mac, src: own4, dst: client4, tag: tag})}))
		require.NoError(t, d.Queues()[0].Flush())
		_, ok := b.fromWire(soon, tagged(tag))
		require.True(t, ok, "the frame is lost")
	}
	const server, vf = 0, 1
	arrives(vf, b.server, inst)
	e, kept := b.kept()
	b.die()
	arrives(vf, b.server, inst) // nobody is there
	leaves(inst)

	u := b.takeOver(e, kept)
	require.Len(t, u.VFs(), 1)
	again := u.Of(owner)
	require.Equal(t, uint32(owner), again.Owner())
	require.Equal(t, some.String(), again.Ports().String())
	dport = 8
	arrives(server, b.server, inst)
	dport = 9
	require.NotContains(t, names(t), orphan.outerName)
	require.NotContains(t, names(t), lost.outletName())
	require.Contains(t, names(t), again.outletName())
	arrives(vf, b.server, inst)
	leaves(inst)
	stats, err := again.Stats()
	require.NoError(t, err)
	require.Equal(t, direct.Outlet("all"), stats.Outlet)
	require.GreaterOrEqual(t, stats.Out, uint64(2), "by the outlet")
	require.GreaterOrEqual(t, stats.In, uint64(3), "the counters go on")
	require.NoError(t, u.Steer(owner, nil))
	arrives(server, b.server, inst)
	require.NoError(t, u.Stamp(owner, 9))
	require.NoError(t, u.Steer(owner, again))
	arrives(vf, b.server, inst)

	second, its := b.newVF(other)
	require.Nil(t, second.Ports())
	require.NoError(t, u.Steer(other, second))
	require.NoError(t, its.Close())
	require.NoError(t, u.Close())
	require.NoError(t, u.Tables().Close())
	for _, name := range names(t) {
		require.NotContains(t, name, prefix)
	}
}

func names(t testing.TB) (all []string) {
	t.Helper()
	for _, l := range links(t) {
		all = append(all, l.Attrs().Name)
	}
	return all
}

// TestTakeOverRefuses what is no uplink, and closes it.
func TestTakeOverRefuses(t *testing.T) {
	b := newBench(t, 1)
	ctx := context.Background()
	e, kept := b.kept()
	_, err := TakeOver(ctx, Options{}, e, kept)
	require.ErrorIs(t, err, direct.ErrInUse, "its holder lives")
	require.Error(t, closed(kept[0]))

	e, kept = b.kept()
	b.die()
	before := holdings(t)
	for name, files := range map[string][]int{
		"no files":      nil,
		"only keep":     kept[:2],
		"a socket less": kept[:3],
		"no link":       {kept[2], kept[1], kept[2], kept[3]},
	} {
		// No subtest: it would run in another thread, in another namespace.
		_, err := TakeOver(ctx, Options{}, e, duplicates(t, files))
		require.Error(t, err, name)
		require.NotErrorIs(t, err, direct.ErrInUse, name)
		require.NotErrorIs(t, err, direct.ErrNoNIC, name)
	}
	require.False(t, holdings(t).exceeds(before), "%+v, more than %+v", holdings(t), before)
	closeAll(kept)
}

// closed returns an error if fd is.
func closed(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err
}
