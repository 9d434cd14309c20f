package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/config"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/netserver"
	"junction/portmap"
)

// give gives an order as an operator.
func give(t *testing.T, socket, verb string, args, v any) error {
	t.Helper()
	o, err := client.DialOperator(t.Context(), socket)
	require.NoError(t, err)
	defer o.Close()
	return o.Ask(t.Context(), verb, args, v)
}

// TestUpgrade: another program takes over; one that does not get ready does not.
func TestUpgrade(t *testing.T) {
	socket := start(t, "works")
	join(t, socket, "a")
	before := mustAsk[Status](t, socket, "status").Server
	self, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	other, broken := filepath.Join(dir, "other"), filepath.Join(dir, "broken")
	require.NoError(t, os.Symlink(self, other))
	require.NoError(t, os.WriteFile(broken, []byte("#!/bin/sh\nexit 3\n"), 0o755))

	var after ServerStatus
	require.NoError(t, give(t, socket, "upgrade", wire.Upgrade{Path: other}, &after))
	require.NotEqual(t, before.PID, after.PID)
	exe, err := os.ReadFile(filepath.Join("/proc", itoa(after.PID), "cmdline"))
	require.NoError(t, err)
	require.Contains(t, string(exe), other)

	err = give(t, socket, "upgrade", wire.Upgrade{Path: broken}, &after)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "the one before serves again")
	require.Eventually(t, func() bool { return mustAsk[Status](t, socket, "status").Server.Ready }, 30*time.Second, time.Millisecond)
	require.ErrorContains(t, give(t, socket, "upgrade", wire.Upgrade{Path: filepath.Join(dir, "none")}, &after), "no such file")
}

func TestLimitOrder(t *testing.T) {
	socket := start(t, "works")
	join(t, socket, "a")
	var i InstanceStatus
	rate, weight, none, most := uint64(1000), uint32(5), uint32(0), uint32(netserver.MaxWeight+1)
	require.NoError(t, give(t, socket, "limit", wire.Limit{ID: 1, Rate: &rate}, &i))
	require.EqualValues(t, 1, i.Weight)
	require.NoError(t, give(t, socket, "limit", wire.Limit{ID: 1, Weight: &weight}, &i))
	now := mustAsk[Status](t, socket, "status").Instances[0]
	require.EqualValues(t, 1000, now.Rate)
	require.EqualValues(t, 5, now.Weight)
	require.Error(t, give(t, socket, "limit", wire.Limit{ID: 2, Rate: &rate}, &i))
	require.ErrorContains(t, give(t, socket, "limit", wire.Limit{ID: 1, Weight: &none}, &i), "accepted: 1 to 1000")
	require.Error(t, give(t, socket, "limit", wire.Limit{ID: 1, Weight: &most}, &i))
	require.Error(t, give(t, socket, "limit", "nonsense", &i))
}

// TestAwaitedOrders: no order is taken to be done that is for an instance that has not
// come back to a new monitor.
func TestAwaitedOrders(t *testing.T) {
	m := &Monitor{awaiting: map[portmap.Instance]record{7: {ID: 7, Name: "web", Peer: control.Peer{PID: 99}}}}
	for _, verb := range []string{"limit", "switch", "unpin", "exec", "signal"} {
		for id, want := range map[int]error{7: unix.EAGAIN, 8: unix.ESRCH} {
			args := json.RawMessage(fmt.Sprintf(`{"id": %d, "mode": "direct", "weight": 2, "rate_bytes_per_second": 5}`, id))
			_, err := m.answer(t.Context(), t.Context(), control.Peer{}, wire.Ask{Verb: verb, Args: args}, new(control.Envelope))
			require.ErrorIs(t, err, want, verb)
		}
	}
}

// TestErrorNamesOrderOnce: the client says which order failed, so the monitor does not.
func TestErrorNamesOrderOnce(t *testing.T) {
	socket := start(t, "works")
	const noObject = 7
	nobody := wire.Target{ID: 99}
	for verb, wrong := range map[string]any{
		"auto": map[string]int{"queues": -1}, "upgrade": wire.Upgrade{Path: "/none"},
		"unpin": nobody, "switch": nobody, "limit": nobody, "exec": nobody, "signal": nobody,
		wire.SchedCreate: wire.Sched{CPUs: "x"}, wire.SchedPush: wire.Sched{Enclave: "none"},
	} {
		for _, args := range []any{noObject, wrong} {
			_, err := command[any](t, socket, verb, args)
			require.ErrorContains(t, err, verb+": ")
			require.Equal(t, 1, strings.Count(err.Error(), verb), err.Error())
		}
	}
}

// TestPriority: it decides the weight that an instance begins with, as far as its
// user may; limit overrides it.
func TestPriority(t *testing.T) {
	socket := start(t, "works")
	for n, want := range []struct {
		priority config.Priority
		weight   uint32
		shown    string
	}{{"", 1, "be"}, {config.BestEffort, 1, "be"}, {config.LatencyCritical, latencyWeight, "lc"}} {
		i, err := client.JoinInstance(t.Context(), socket, fmt.Sprint("i", n), wire.Join{Priority: want.priority}, nil)
		require.NoError(t, err)
		t.Cleanup(i.Close)
		require.Empty(t, i.Lease().Warnings)
		is := mustAsk[Status](t, socket, "status").Instances[n]
		require.Equal(t, want.weight, is.Weight)
		require.Equal(t, want.shown, is.Priority)
	}
	_, err := client.JoinInstance(t.Context(), socket, "wrong", wire.Join{Priority: "high"}, nil)
	require.ErrorContains(t, err, "accepted: lc, be")
	var i InstanceStatus
	weight := uint32(3)
	require.NoError(t, give(t, socket, "limit", wire.Limit{ID: 3, Weight: &weight}, &i))
	require.EqualValues(t, 3, i.Weight)

	other := instance{peer: control.Peer{UID: uint32(os.Geteuid()) + 1}}
	require.NoError(t, other.prioritize(config.LatencyCritical))
	require.Zero(t, other.weight, "another user's, which has the default")
}

// TestMetrics: what is there can be scraped; the registry checks each metric.
func TestMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	socket := startWith(t, "works", func(o *Options) { o.Metrics = addr })
	join(t, socket, "web")
	var body []byte
	require.Eventually(t, func() bool {
		r, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		body, err = io.ReadAll(r.Body)
		return err == nil && r.StatusCode == http.StatusOK
	}, 30*time.Second, 5*time.Millisecond)
	require.Contains(t, string(body), "junction_instances 1\n")
	require.Contains(t, string(body), "junction_netserver_ready 1\n")
	require.Contains(t, string(body), `junction_ports{id="1",name="web"} 0`)
	http.DefaultClient.CloseIdleConnections()
}

// TestInstanceOrders: an order reaches the instance that it names, with its
// files, and the answer comes back; so does a refusal, with its number.
func TestInstanceOrders(t *testing.T) {
	socket := start(t, "works")
	obey := func(_ context.Context, verb string, args json.RawMessage, files []int) (any, error) {
		var s wire.Signal
		if err := json.Unmarshal(args, &s); err != nil {
			return nil, err
		}
		switch s.Signal {
		case 1:
			return nil, fmt.Errorf("%s: %w", strings.Repeat("long ", 2000), unix.EACCES)
		case 2:
			_, err := unix.Write(files[0], []byte(verb))
			return s, err
		}
		return s, nil
	}
	i, err := client.JoinInstance(t.Context(), socket, "a", wire.Join{}, obey)
	require.NoError(t, err)
	defer i.Close()
	id := wire.Target{ID: i.Lease().ID}

	var got wire.Signal
	require.NoError(t, give(t, socket, "signal", wire.Signal{Target: id, Signal: 15}, &got))
	require.Equal(t, wire.Signal{Target: id, Signal: 15}, got)

	err = give(t, socket, "signal", wire.Signal{Target: id, Signal: 1}, &got)
	var refusal *control.Error
	require.ErrorAs(t, err, &refusal)
	require.EqualValues(t, unix.EACCES, refusal.Code)

	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	o, err := client.DialOperator(t.Context(), socket)
	require.NoError(t, err)
	defer o.Close()
	require.NoError(t, o.Ask(t.Context(), "exec", wire.Signal{Target: id, Signal: 2}, &got, int(w.Fd())))
	require.NoError(t, w.Close())
	text, err := io.ReadAll(r) // ends when nobody else has the file
	require.NoError(t, err)
	require.Equal(t, "exec", string(text))

	err = give(t, socket, "signal", wire.Signal{Target: wire.Target{ID: 77}, Signal: 15}, &got)
	require.ErrorContains(t, err, "no instance 77")
	i.Close()
	require.Eventually(t, func() bool {
		err := give(t, socket, "signal", wire.Signal{Target: id, Signal: 15}, &got)
		return err != nil && errors.As(err, &refusal) && refusal.Code == uint32(unix.ESRCH)
	}, 30*time.Second, time.Millisecond)
}

// TestInstanceEndsUnderOrder: who waits for an instance's answer learns that it
// has ended.
func TestInstanceEndsUnderOrder(t *testing.T) {
	socket := start(t, "works")
	asked := make(chan struct{})
	obey := func(ctx context.Context, _ string, _ json.RawMessage, _ []int) (any, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	i, err := client.JoinInstance(t.Context(), socket, "a", wire.Join{}, obey)
	require.NoError(t, err)
	go func() {
		<-asked
		i.Close()
	}()
	err = give(t, socket, "signal", wire.Signal{Target: wire.Target{ID: i.Lease().ID}}, new(struct{}))
	require.ErrorContains(t, err, "has ended")
}

// TestOwnerOnly: of those who are not root, only an instance's user may order it about.
func TestOwnerOnly(t *testing.T) {
	m := &Monitor{instances: map[portmap.Instance]*instance{1: {id: 1, peer: control.Peer{UID: 1000}}}}
	a := wire.Ask{Verb: "signal", Args: json.RawMessage(`{"id":1}`)}
	m.instances[1].asked.end()
	_, err := m.askInstance(t.Context(), control.Peer{UID: 1001}, a)
	require.ErrorIs(t, err, unix.EPERM)
	for _, uid := range []uint32{0, 1000} {
		_, err = m.askInstance(t.Context(), control.Peer{UID: uid}, a)
		require.ErrorIs(t, err, unix.ESRCH) // allowed, and it has ended
	}
}
