package portmap

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"junction/portmap/table"
)

// TestMapIsTheModel runs the same random calls on both: 100 times a thousand
// and more by default.
func TestMapIsTheModel(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		d := &driver{model: newModel(), t: t}
		d.model.share = draw(d, []int{0, 1, 2})
		m, err := New(d.options())
		require.NoError(t, err)
		d.m = m
		d.writer, d.view = newTable(t, m)
		d.writer.Apply(m.Changes())
		d.model.check(t, d.view)
		defer func() {
			require.NoError(t, d.view.Close())
			require.NoError(t, d.writer.Close())
		}()
		ops := rapid.SliceOfN(rapid.IntRange(0, 99), 1000, 1500).Draw(t, "ops")
		for _, op := range ops {
			d.step(op)
			d.writer.Apply(d.m.Changes())
			d.model.check(t, d.view)
			steps++
		}
		checkInvariants(t, d.m, d.view)
	})
	t.Logf("%d steps", steps)
	require.GreaterOrEqual(t, steps, 1000)
}

type driver struct {
	m      *Map
	model  *model
	writer *table.Writer
	view   *table.View
	t      *rapid.T
}

func (d *driver) options() Options {
	o := worldOptions
	o.Share = d.model.share
	return o
}

func (d *driver) same(want unix.Errno, got error) {
	if want == 0 {
		require.NoError(d.t, got)
		return
	}
	require.ErrorIs(d.t, got, want)
}

func draw[T any](d *driver, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(d.t, "")]
}

func (d *driver) step(op int) {
	id := Instance(rapid.IntRange(1, 4).Draw(d.t, "instance"))
	sock := Socket(rapid.IntRange(1, 5).Draw(d.t, "socket"))
	switch {
	case op < 10:
		l := d.lease()
		want := d.model.join(id, l)
		d.same(want, d.m.Join(id, l))
	case op < 12:
		d.model.leave(id)
		d.m.Leave(id)
	case op < 13:
		d.restart()
	case op < 16:
		d.settle(id)
	case op < 60:
		d.bind(id, sock)
	case op < 70:
		on := rapid.Bool().Draw(d.t, "on")
		d.same(d.model.listen(id, sock, on), d.m.Listen(id, sock, on))
	case op < 90:
		wait := draw(d, []time.Duration{0, 1, 5, 1000})
		d.same(d.model.close(id, sock, wait), d.m.Close(id, sock, wait))
	default:
		d.advance()
	}
}

func (d *driver) lease() Lease {
	l := Lease{
		Mode: draw(d, worldModes), MinPort: draw(d, []uint16{0, 80}),
		MaxPorts: draw(d, []int{4, 100}), MaxSockets: draw(d, []int{3, 100}),
		Returning: rapid.IntRange(0, 4).Draw(d.t, "returning") == 0,
	}
	pick := rapid.IntRange(1, 1<<len(worldAddrs)-1).Draw(d.t, "addrs")
	for i, a := range worldAddrs {
		if pick>>i&1 != 0 {
			l.Addrs = append(l.Addrs, a)
		}
	}
	return l
}

func (d *driver) bind(id Instance, sock Socket) {
	r := Request{
		Socket: sock, Proto: draw(d, worldProtos), Addr: draw(d, worldBinds),
		Port: draw(d, append([]uint16{0, 0}, worldPorts...)), Purpose: draw(d, []Purpose{ForBind, ForBind, ForConnect, ForSend}),
		Options: SocketOptions{
			ReuseAddr: rapid.Bool().Draw(d.t, "reuseaddr"), ReusePort: rapid.Bool().Draw(d.t, "reuseport"),
			V6Only: rapid.Bool().Draw(d.t, "v6only"), UID: uint32(rapid.IntRange(0, 1).Draw(d.t, "uid")),
		},
	}
	s, want := d.model.bind(id, r)
	ep, err := d.m.Bind(id, r)
	d.same(want, err)
	if want != 0 {
		return
	}
	require.Equal(d.t, r.Addr, ep.Addr())
	if r.Port != 0 {
		require.Equal(d.t, r.Port, ep.Port())
	} else {
		require.Contains(d.t, d.model.free(s.eps), ep.Port())
	}
	d.model.add(s, ep.Port())
}

func (d *driver) advance() {
	by := draw(d, []time.Duration{0, 1, 3, 60})
	d.model.now += by
	d.model.expire()
	require.NoError(d.t, d.m.Advance(d.model.now))
	due, ok := d.m.Deadline()
	waits := slices.DeleteFunc(slices.Clone(d.model.socks), func(s *modelSocket) bool { return !s.waits })
	require.Equal(d.t, len(waits) > 0, ok)
	for _, s := range waits {
		require.LessOrEqual(d.t, due, s.until)
	}
}

// restart takes over from the table that Views see.
func (d *driver) restart() {
	d.model.restart()
	mirror := d.m.mirror
	mirror.Slots, mirror.Ports = slices.Clone(mirror.Slots), slices.Clone(mirror.Ports)
	m, err := Restore(d.options(), mirror)
	require.NoError(d.t, err)
	d.m = m
	var absent []Instance
	for id := range d.model.leases {
		absent = append(absent, id)
	}
	slices.Sort(absent)
	require.Equal(d.t, absent, m.Absent())
}

func (d *driver) settle(id Instance) {
	if d.model.joined(id) == nil {
		d.same(unix.ESRCH, d.m.Settle(id))
		return
	}
	d.model.unkeep(func(_ endpoint, owner Instance) bool { return owner == id })
	d.model.leases[id].Returning = false
	require.NoError(d.t, d.m.Settle(id))
}
