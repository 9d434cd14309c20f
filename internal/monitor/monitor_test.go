package monitor

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/portmap"
	"junction/portmap/table"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestSharedLease(t *testing.T) {
	socket := start(t, "works")
	i := join(t, socket, "web")
	l := i.Lease()
	require.True(t, l.Shared)
	require.Equal(t, []netip.Prefix{shared4, shared6}, l.Prefixes)
	require.Equal(t, []netip.Addr{addr("198.18.0.1")}, l.Gateways)
	require.Equal(t, wire.Link{MAC: "02:00:00:00:00:01", MTU: 1500}, l.Link)
	require.Len(t, i.Rings(), 1)
	require.Equal(t, ipc.InstanceSide, i.Rings()[0].Side())
	s := mustAsk[Status](t, socket, "status")
	require.True(t, s.Server.Ready)
	require.Len(t, s.Instances, 1)
	require.Equal(t, "web", s.Instances[0].Name)
	require.EqualValues(t, os.Getpid(), s.Instances[0].PID)
}

func TestDedicatedLease(t *testing.T) {
	socket := start(t, "works")
	i := join(t, socket, "a", addr("198.18.0.130"), addr("10.9.1.1"))
	require.False(t, i.Lease().Shared)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("198.18.0.130/24"), netip.MustParsePrefix("10.9.1.1/16")}, i.Lease().Prefixes)
	for a, why := range map[string]string{
		"198.18.0.130": "dedicated to instance 1",
		"198.18.0.2":   "shared address",
		"198.18.0.3":   "none of the networks",
		"192.0.2.1":    "none of the networks",
	} {
		_, err := client.JoinInstance(t.Context(), socket, "b", wire.Join{Addrs: []netip.Addr{addr(a)}}, nil)
		require.ErrorContains(t, err, why, a)
	}
	i.Close()
	require.Eventually(t, func() bool { // the monitor hears of it a moment later
		b, err := client.JoinInstance(t.Context(), socket, "b", wire.Join{Addrs: []netip.Addr{addr("198.18.0.130")}}, nil)
		if err != nil {
			return false
		}
		b.Close()
		return true
	}, 30*time.Second, time.Millisecond)
}

func bind(t *testing.T, i *client.Instance, port uint16) (portmap.Socket, uint16, error) {
	t.Helper()
	return i.Bind(t.Context(), table.TCP, netip.IPv4Unspecified(), port, portmap.ForBind, false)
}

func TestPorts(t *testing.T) {
	socket := start(t, "works")
	a, b := join(t, socket, "a"), join(t, socket, "b")
	web, port, err := bind(t, a, 80)
	require.NoError(t, err)
	require.EqualValues(t, 80, port)
	_, _, err = bind(t, b, 80)
	require.ErrorIs(t, err, unix.EADDRINUSE)
	_, _, err = bind(t, a, 80)
	require.NoError(t, err, "an instance's own affair")
	_, port, err = bind(t, b, 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, port, uint16(portmap.DefaultEphemeralLow))
	ports := mustAsk[[]PortStatus](t, socket, "ports")
	require.Len(t, ports, 2)
	require.Equal(t, PortStatus{Proto: "tcp", Endpoint: netip.AddrPortFrom(shared4.Addr(), 80), ID: 1, Name: "a", State: "bound", Mode: "server"}, ports[0])

	require.NoError(t, a.Release(t.Context(), web))
	require.Error(t, a.Release(t.Context(), web))
	_, _, err = bind(t, b, 80)
	require.ErrorIs(t, err, unix.EADDRINUSE, "its second holder has it still")
	a.Close()
	require.Eventually(t, func() bool {
		_, _, err := bind(t, b, 80)
		return err == nil
	}, 30*time.Second, time.Millisecond, "free when its instance has left")
}

// TestServerReplaced: the next server gets all instances, whatever ended the last.
func TestServerReplaced(t *testing.T) {
	socket := start(t, "works")
	join(t, socket, "a")
	b := join(t, socket, "b")
	join(t, socket, "c")
	b.Close()
	attached := func() (ids []uint32) {
		if ask(t, socket, "stats", &ids) != nil {
			return nil
		}
		return ids
	}
	want := []uint32{1, 3}
	require.Eventually(t, func() bool { return len(attached()) == 2 }, 30*time.Second, time.Millisecond)
	require.Equal(t, want, attached())
	for n := range uint64(3) {
		before := mustAsk[Status](t, socket, "status").Server
		require.Equal(t, n, before.Restarts)
		if n == 2 {
			require.NotEqual(t, before.PID, mustAsk[ServerStatus](t, socket, "restart").PID)
		} else {
			require.NoError(t, syscall.Kill(before.PID, syscall.SIGKILL))
			require.Eventually(t, func() bool {
				s := mustAsk[Status](t, socket, "status").Server
				return s.Ready && s.PID != before.PID
			}, 30*time.Second, time.Millisecond)
		}
		require.Eventually(t, func() bool { return len(attached()) == 2 }, 30*time.Second, time.Millisecond)
		require.Equal(t, want, attached())
	}
	require.Equal(t, "signal: killed", mustAsk[Status](t, socket, "status").Server.LastEnd)
}

// TestServerHangs: one that says nothing is killed and replaced, again and again.
func TestServerHangs(t *testing.T) {
	socket := start(t, "hangs")
	require.Eventually(t, func() bool { return mustAsk[Status](t, socket, "status").Server.Hangs >= 2 }, 30*time.Second, 5*time.Millisecond)
}

// TestServerCrashes: one that never gets ready is started again, ever more slowly.
func TestServerCrashes(t *testing.T) {
	socket := start(t, "crashes")
	require.Eventually(t, func() bool { return mustAsk[Status](t, socket, "status").Server.Restarts >= 3 }, 30*time.Second, 5*time.Millisecond)
	require.ErrorContains(t, ask(t, socket, "stats", new([]uint32)), "not running")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := client.JoinInstance(ctx, socket, "a", wire.Join{}, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded, "there is nothing to join")
}

// TestBrokenInstance: one whose rings the server finds broken loses its lease.
func TestBrokenInstance(t *testing.T) {
	socket := start(t, "works")
	victim := join(t, socket, "victim")
	i, err := client.JoinInstance(t.Context(), socket, "broken", wire.Join{}, nil)
	if err == nil { // else it was cut off before it had all of its lease
		defer i.Close()
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan bool, 1)
		followed := make(chan struct{})
		go func() {
			defer close(followed)
			i.Follow(ctx, func(there bool) { gone <- there })
		}()
		defer func() { cancel(); <-followed }()
		select {
		case there := <-gone:
			require.False(t, there)
		case <-time.After(30 * time.Second):
			t.Fatal("it was not cut off")
		}
		// Nobody takes it back: it would wait for the next monitor.
		waits, enough := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer enough()
		_, _, err = i.Bind(waits, table.TCP, netip.IPv4Unspecified(), 80, portmap.ForBind, false)
		require.ErrorIs(t, err, client.ErrLost)
	}
	_, _, err = bind(t, victim, 80)
	require.NoError(t, err)
	offences := mustAsk[Status](t, socket, "status").Offences
	require.Len(t, offences, 1)
	require.Equal(t, []any{"broken", "bad_test", uint64(1)}, []any{offences[0].Name, offences[0].Kind, offences[0].Count})
}

// TestOffencesAreBounded: names are the offenders' to choose, and may be many.
func TestOffencesAreBounded(t *testing.T) {
	var o offences
	const n = 2 * maxOffences
	for i := range n {
		o.note(itoa(i), control.Peer{PID: 7}, control.ErrProtocol)
		o.note(itoa(i), control.Peer{}, unix.EPERM)
	}
	all, sum := o.list(), uint64(0)
	require.Len(t, all, maxOffences+1)
	for _, at := range all {
		sum += at.Count
	}
	require.EqualValues(t, n, sum)
	require.Equal(t, otherNames, all[0].Name)
}

// TestImpostor: who is not the process that the monitor started is no server.
func TestImpostor(t *testing.T) {
	socket := start(t, "works")
	conn, err := control.Dial(t.Context(), socket)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Handshake(t.Context(), control.Hello{Version: wire.Version, Features: wire.RoleServer})
	require.NoError(t, err)
	env, err := conn.Receive(t.Context())
	require.NoError(t, err)
	var refusal *control.Error
	require.True(t, errors.As(env.Message.(error), &refusal))
	require.EqualValues(t, unix.EPERM, refusal.Code)
}

// TestMalformed: messages that nobody honest sends end their connection and
// nothing else.
func TestMalformed(t *testing.T) {
	socket := start(t, "works")
	for _, role := range []uint64{wire.RoleInstance, wire.RoleOperator, 77} {
		for _, m := range []control.Message{
			control.Raw{Kind: wire.TypeJoin},
			control.Raw{Kind: wire.TypeJoin, Payload: []byte{2, '{', '}'}},
			control.Raw{Kind: wire.TypeJoin, Payload: []byte("\x00{\"addrs\":[\"nowhere\"]}")},
			control.Raw{Kind: wire.TypeJoin, Payload: []byte("\x00{\"unknown\":1}")},
			control.Raw{Kind: wire.TypeAsk, Payload: []byte("\x00[]")},
			control.Raw{Kind: wire.TypeBroken, Payload: []byte("\x00{}")},
			control.Raw{Kind: 9999, Payload: []byte("\x00{}")},
			control.Hello{},
		} {
			conn, err := control.Dial(t.Context(), socket)
			require.NoError(t, err)
			_, err = conn.Handshake(t.Context(), control.Hello{Version: wire.Version, Features: role})
			require.NoError(t, err)
			_ = conn.Send(t.Context(), 1, m) // an unknown role is refused before
			for err == nil {
				var env control.Envelope
				env, err = conn.Receive(t.Context())
				env.Close()
			}
			conn.Close()
		}
	}
	i := join(t, socket, "honest")
	_, _, err := bind(t, i, 80)
	require.NoError(t, err)
	conn, err := control.Dial(t.Context(), socket)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Handshake(t.Context(), control.Hello{Version: wire.Version + 1, Name: "old"})
	require.ErrorIs(t, err, control.ErrVersion)
	require.Eventually(t, func() bool {
		kinds := make(map[string]bool)
		for _, o := range mustAsk[Status](t, socket, "status").Offences {
			kinds[o.Name+" "+o.Kind] = true
		}
		return len(kinds) == 2 && kinds[" bad_message"] && kinds["old wrong_version"]
	}, 30*time.Second, time.Millisecond)
}

func TestPrivileged(t *testing.T) {
	require.NoError(t, privileged(control.Peer{UID: 0}))
	require.NoError(t, privileged(control.Peer{UID: uint32(os.Geteuid())}))
	require.ErrorIs(t, privileged(control.Peer{UID: 12345}), unix.EPERM)
	socket := start(t, "works")
	require.ErrorContains(t, ask(t, socket, "destroy", new(int)), "unknown request")
}

func TestOptions(t *testing.T) {
	good := Options{Socket: "s", Uplink: wire.Setup{NIC: "n"}, Server: []string{"s"}, Shared: []netip.Prefix{shared4}}
	require.NoError(t, good.check())
	require.Equal(t, defaultHangAfter, good.HangAfter)
	bad := good
	bad.Gateways = []netip.Addr{addr("192.0.2.1")}
	require.ErrorIs(t, bad.check(), ErrOptions)
	bad = good
	bad.Shared = nil
	require.ErrorIs(t, bad.check(), ErrOptions)
	for _, d := range []time.Duration{-time.Second, 1, minHangAfter - 1} {
		bad = good
		bad.HangAfter = d
		require.ErrorIs(t, bad.check(), ErrOptions)
	}
}

// TestPortShare: an instance that takes all ephemeral ports it can get leaves some
// for others, is told so by errno, and it is counted.
func TestPortShare(t *testing.T) {
	socket := start(t, "works")
	greedy, other := join(t, socket, "greedy"), join(t, socket, "other")
	bind := func(i *client.Instance, port uint16, p portmap.Purpose) error {
		_, _, err := i.Bind(t.Context(), table.TCP, shared4.Addr(), port, p, false)
		return err
	}
	var err error
	n := 0
	for ; err == nil; n++ {
		err = bind(greedy, 0, portmap.ForConnect)
	}
	require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
	require.ErrorContains(t, err, "has its share of the ports")
	const ephemeral = portmap.DefaultEphemeralHigh - portmap.DefaultEphemeralLow + 1
	require.InDelta(t, ephemeral*2/3, n, 2)
	require.NoError(t, bind(greedy, 80, portmap.ForBind))
	for range 1000 {
		require.NoError(t, bind(other, 0, portmap.ForConnect))
	}
	is := mustAsk[Status](t, socket, "status").Instances
	require.EqualValues(t, 1, is[0].PortsRefused)
	require.Zero(t, is[1].PortsRefused)
}
