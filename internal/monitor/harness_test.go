package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
	"junction/netserver"
)

// TestMain is also the network server of the tests: one without uplink, which
// the monitor starts as a process of its own.
func TestMain(m *testing.M) {
	if role := os.Getenv(schedRole); role != "" {
		if err := playSched(role); err != nil {
			fmt.Fprintln(os.Stderr, role, err)
			os.Exit(1)
		}
		return
	}
	if how := os.Getenv("JUNCTION_TEST_SERVER"); how != "" && slices.Contains(os.Args, "--monitor") {
		if err := fakeServer(how, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, "fake server:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// fakeServer does as told; how says what it does wrong.
func fakeServer(how, socket string) error {
	ctx := context.Background()
	conn, err := control.Dial(ctx, socket)
	if err != nil {
		return err
	}
	if _, err := conn.Handshake(ctx, control.Hello{Version: wire.Version, Features: wire.RoleServer, Name: "fake"}); err != nil {
		return err
	}
	if err := wire.Send(ctx, conn, 0, wire.TypeBack, wire.Back{}); err != nil {
		return err
	}
	r := wire.Receiver{Conn: conn}
	setup, err := r.Receive(ctx)
	if err != nil || how == "crashes" {
		return err
	}
	setup.Close()
	ready := wire.Ready{Link: wire.Link{MAC: "02:00:00:00:00:01", MTU: 1500}}
	if err := wire.Send(ctx, conn, 0, wire.TypeReady, ready); err != nil {
		return err
	}
	attached := make(map[uint32]*ipc.End)
	for {
		env, err := r.Receive(ctx)
		if err != nil {
			return nil // the monitor ended
		}
		switch env.Message.Type() {
		case wire.TypePing:
			if how != "hangs" {
				err = wire.Send(ctx, conn, env.ID, wire.TypePong, wire.Pong{})
			}
		case wire.TypeAttach:
			err = fakeAttach(ctx, &r, &env, attached)
		case wire.TypeDetach:
			var d wire.Detach
			err = wire.Decode(&env, wire.TypeDetach, &d)
			delete(attached, d.ID)
		case wire.TypeAsk:
			var a wire.Ask
			if err = wire.Decode(&env, wire.TypeAsk, &a); err != nil {
				break
			}
			b, _ := json.Marshal(slices.Sorted(maps.Keys(attached)))
			if how == "counts" && a.Verb == "stats" {
				b, _ = json.Marshal(fakeStats(slices.Sorted(maps.Keys(attached))))
			}
			err = wire.Send(ctx, conn, env.ID, wire.TypeAnswer, json.RawMessage(b))
		}
		if err != nil {
			return err
		}
	}
}

// fakeStats makes the instance with the lowest number the busiest, by far.
func fakeStats(ids []uint32) netserver.Stats {
	s := netserver.Stats{Ports: make(map[uint32]netserver.PortStats)}
	for n, id := range ids {
		const perSecond = 1e6
		var p netserver.PortStats
		p.In = uint64(time.Since(fakeStart).Seconds() * perSecond / math.Pow(10000, float64(n)))
		s.Ports[id] = p
	}
	return s
}

var fakeStart = time.Now()

// fakeAttach takes an instance's rings. One that is called broken it reports.
func fakeAttach(ctx context.Context, r *wire.Receiver, env *control.Envelope, attached map[uint32]*ipc.End) error {
	var a wire.Attach
	if err := wire.Decode(env, wire.TypeAttach, &a); err != nil {
		return err
	}
	rings, err := r.Receive(ctx)
	if err != nil {
		return err
	}
	ends, err := client.AttachRings(&rings, ipc.ServerSide)
	if err != nil {
		return err
	}
	attached[a.ID] = ends[0]
	if a.Name == "broken" {
		return wire.Send(ctx, r.Conn, 0, wire.TypeBroken, wire.Broken{ID: a.ID, Breach: "bad_test", Reason: "a test"})
	}
	return nil
}

// The monitor's addresses.
var (
	shared4 = netip.MustParsePrefix("198.18.0.2/24")
	shared6 = netip.MustParsePrefix("fd00::2/64")
)

// start runs a monitor for a test, with a fake server that does how.
func start(t *testing.T, how string) (socket string) {
	t.Helper()
	return startWith(t, how, func(*Options) {})
}

func itoa(n int) string { return fmt.Sprint(n) }

// startWith is start with changed options.
func startWith(t *testing.T, how string, change func(*Options)) (socket string) {
	t.Helper()
	t.Setenv("JUNCTION_TEST_SERVER", how)
	self, err := os.Executable()
	require.NoError(t, err)
	socket = filepath.Join(t.TempDir(), "monitor.sock")
	o := Options{
		Socket: socket, Uplink: wire.Setup{NIC: "none"}, Server: []string{self}, HangAfter: 30 * time.Second, // a busy machine is no hang
		Shared: []netip.Prefix{shared4, shared6}, Gateways: []netip.Addr{netip.MustParseAddr("198.18.0.1")},
		Dedicated: []netip.Prefix{netip.MustParsePrefix("198.18.0.128/25"), netip.MustParsePrefix("10.9.0.0/16")},
	}
	if how == "hangs" {
		o.HangAfter = 100 * time.Millisecond
	}
	change(&o)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	require.Eventually(t, func() bool {
		_, err := os.Stat(socket)
		return err == nil
	}, 30*time.Second, time.Millisecond)
	return socket
}

// join makes an instance for a test.
func join(t *testing.T, socket, name string, addrs ...netip.Addr) *client.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	i, err := client.JoinInstance(ctx, socket, name, wire.Join{Addrs: addrs}, nil)
	require.NoError(t, err)
	t.Cleanup(i.Close)
	return i
}

// ask asks as an operator.
func ask(t *testing.T, socket, verb string, v any) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o, err := client.DialOperator(ctx, socket)
	require.NoError(t, err)
	defer o.Close()
	return o.Ask(ctx, verb, nil, v)
}

func mustAsk[T any](t *testing.T, socket, verb string) (v T) {
	t.Helper()
	require.NoError(t, ask(t, socket, verb, &v))
	return v
}
