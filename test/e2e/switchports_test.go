package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/direct/steer/scope"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// TestSwitchPorts: an instance has one of its ports in direct mode and the other with
// the network server. Both are used by both protocols, and every answer compared, while
// it is switched there and back; so is another instance's on the same address. The
// counters of queue and network server then say what carried what. A port of the list
// may be opened late, and again.
func TestSwitchPorts(t *testing.T) {
	rounds := max(3, switches(t)/2)
	eachServerRig(t, func(t *testing.T, r *rig) {
		load := new(running)
		load.it = r.startNamed("it", guest, "echo", ":7", ":8")
		load.it.await("ready")
		other := r.startNamed("other", guest, "echo", ":10")
		other.await("ready")
		for _, port := range []uint16{7, 8, 10} {
			r.useEcho(t, load, port)
		}
		op, id := r.operator(), r.idOf("it")
		seventh, eighth := portList(t, "7,9"), portList(t, "8/tcp,8/udp")
		var worst time.Duration
		for range rounds {
			for _, o := range []wire.SwitchOrder{{Mode: protocol.Direct, Ports: seventh}, {Mode: protocol.Server}} {
				o.ID = id
				s := op.order(o)
				worst = max(worst, micros(s.BlackoutUS))
				require.True(t, s.Ports.Equal(o.Ports), "%v", s.Ports)
				load.goesOn(t)
			}
		}
		load.stop()
		t.Logf("%d switches each way, %d answers; a switch kept a packet back for %v at most; %s", rounds, load.done.Load(), worst, load.sum())

		r.carries(t, "it", map[uint16]string{7: "server", 8: "server"})
		op.order(wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: protocol.Direct, Ports: seventh})
		r.carries(t, "it", map[uint16]string{7: "direct", 8: "server"})
		for range 2 { // opened after the switch, and again
			late := r.exec("it", guest, "echo", ":9")
			late.await("ready")
			r.carries(t, "it", map[uint16]string{9: "direct", 8: "server"})
			late.terminate(143)
		}
		s := op.order(wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: protocol.Direct, Ports: eighth})
		require.True(t, s.ViaServer)
		r.carries(t, "it", map[uint16]string{7: "server", 8: "direct"})
		op.order(wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: protocol.Direct})
		r.carries(t, "it", map[uint16]string{7: "direct", 8: "direct"})
		op.order(wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: protocol.Direct, Ports: seventh})
		r.monitor.kill()
		r.startMonitor()
		r.carries(t, "it", map[uint16]string{7: "direct", 8: "server"}) // as the monitor before had it
		r.switchTo("it", "server")
		r.carries(t, "other", map[uint16]string{10: "server"})
		for _, i := range []*instance{load.it, other} {
			i.terminate(143)
			i.checkStats()
		}
		r.checkAccounts()
	})
}

func portList(t *testing.T, list string) *scope.Ports {
	t.Helper()
	p, err := scope.Parse(list)
	require.NoError(t, err)
	return p
}

// useEcho begins to use a port of an echo server: by numbered datagrams, by two
// connections that stay and by one after another.
func (r *rig) useEcho(t *testing.T, l *running, port uint16) {
	t.Helper()
	addr := netip.AddrPortFrom(addr4, port)
	for k := range 2 {
		c := r.mustDial(addr, 2*time.Hour)
		l.client(t, func(n int) error { return echoed(c, fmt.Sprintf("port %d, connection %d, message %d", port, k, n)) })
	}
	l.client(t, func(n int) error { return r.dialEcho(addr, fmt.Sprint("connection ", n)) })
	c, err := r.Client.ListenPacket("udp4", "198.18.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	n := &numbered{l: l, conn: c.(*net.UDPConn), to: addr, window: make(chan struct{}, 20)}
	n.pause.Store(int64(200 * time.Microsecond))
	n.start(t)
	before := l.sum
	l.sum = func() string {
		text := ""
		if before != nil {
			text = before() + "; "
		}
		require.EqualValues(t, n.sent, n.received, "datagrams lost")
		require.Zero(t, n.twice, "datagrams that came twice")
		return text + fmt.Sprintf("port %d: %d datagrams, %d after a later one", port, n.sent, n.late)
	}
}

// echoed sends a message and compares what comes back.
func echoed(c net.Conn, msg string) error {
	if _, err := io.WriteString(c, msg); err != nil {
		return err
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != msg {
		return fmt.Errorf("got %q: %w", got, err)
	}
	return nil
}

// portsShown is what junction_ctl show tells of ports and of frames.
type portsShown struct {
	Queue struct {
		In  uint64 `json:"in"`
		Out uint64 `json:"out"`
	} `json:"queue"`
	Traffic struct {
		In         uint64 `json:"in"`
		ToInstance uint64 `json:"to_instance"`
	} `json:"traffic"`
	Ports []struct {
		Endpoint netip.AddrPort `json:"endpoint"`
		Mode     string         `json:"mode"`
	} `json:"ports"`
}

// carries uses ports of an echo server one at a time and checks by which path the
// messages went, and that junction_ctl says so.
func (r *rig) carries(t *testing.T, name string, modes map[uint16]string) {
	t.Helper()
	const messages, others = 200, 50 // others: ARP and whatever else may come by
	shown := func() (s portsShown) {
		r.ctl(&s, "show", name)
		return s
	}
	for port, mode := range modes {
		for _, network := range []string{"tcp", "udp"} {
			before := shown()
			r.exchange(t, network, port, messages)
			after := shown()
			queue := min(after.Queue.In-before.Queue.In, after.Queue.Out-before.Queue.Out)
			server := min(after.Traffic.In-before.Traffic.In, after.Traffic.ToInstance-before.Traffic.ToInstance)
			used, idle := server, after.Queue.In-before.Queue.In+after.Queue.Out-before.Queue.Out
			if mode == "direct" {
				used, idle = queue, after.Traffic.In-before.Traffic.In+after.Traffic.ToInstance-before.Traffic.ToInstance
			}
			require.GreaterOrEqual(t, used, uint64(messages), "%s port %d is to be in %s mode: %+v, then %+v", network, port, mode, before, after)
			require.Less(t, idle, uint64(others), "%s port %d is to be in %s mode: %+v, then %+v", network, port, mode, before, after)
			n := 0
			for _, p := range after.Ports {
				if p.Endpoint.Port() == port {
					n++
					require.Equal(t, mode, p.Mode, "%v", p.Endpoint)
				}
			}
			require.NotZero(t, n)
		}
	}
}

// exchange sends messages and compares what comes back, one after another.
func (r *rig) exchange(t *testing.T, network string, port uint16, messages int) {
	t.Helper()
	var c net.Conn
	addr := netip.AddrPortFrom(addr4, port)
	if network == "tcp" {
		c = r.mustDial(addr, time.Minute)
	} else {
		require.NoError(t, r.Client.Do(func() (err error) {
			c, err = net.Dial("udp", addr.String())
			return err
		}))
		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	}
	defer c.Close()
	for n := range messages {
		require.NoError(t, echoed(c, fmt.Sprintf("message %5d", n)), "%s port %d, message %d", network, port, n)
	}
}
