package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// switches is how often an instance is switched each way: JUNCTION_E2E_SWITCHES or 20.
func switches(t *testing.T) int {
	n := 20
	if testing.Short() {
		n = 5
	}
	if s := os.Getenv("JUNCTION_E2E_SWITCHES"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	return n
}

// switched is what junction_ctl switch prints.
type switched struct {
	Mode       string  `json:"mode"`
	Reason     string  `json:"reason"`
	BlackoutUS float64 `json:"blackout_us"`
	TotalUS    float64 `json:"total_us"`
	InFlight   uint64  `json:"in_flight"`
	Lost       uint64  `json:"lost"`
	Duplicates uint64  `json:"duplicates"`
	Reordered  uint64  `json:"reordered"`
	HeldTx     uint64  `json:"held_tx"`
	HeldRx     uint64  `json:"held_rx"`
	Steps      []struct {
		Name string  `json:"name"`
		US   float64 `json:"us"`
	} `json:"steps"`
}

// switchTo switches an instance. On a machine that has too much to do a switch may
// be rolled back, to be tried again; not for ever.
func (r *rig) switchTo(name, mode string) (s switched) {
	r.t.Helper()
	const attempts = 5
	for range attempts {
		order := r.beginSwitch(name, mode, "--wait")
		order.exit()
		require.NoError(r.t, json.Unmarshal([]byte(order.stdout.String()), &s), "%s", order.stderr)
		require.Zero(r.t, s.Duplicates)
		if s.Reason == "" {
			require.Zero(r.t, order.code)
			require.Equal(r.t, mode, s.Mode)
			return s
		}
		require.NotEqual(r.t, mode, s.Mode)
		r.t.Logf("rolled back: %s", s.Reason)
	}
	require.Empty(r.t, s.Reason)
	return s
}

// record sums up switches.
type record struct {
	blackouts, totals []time.Duration
	sum               switched
}

func (c *record) add(s switched) {
	c.blackouts = append(c.blackouts, time.Duration(s.BlackoutUS*1e3))
	c.totals = append(c.totals, time.Duration(s.TotalUS*1e3))
	c.sum.InFlight += s.InFlight
	c.sum.Lost += s.Lost
	c.sum.Reordered += s.Reordered
	c.sum.HeldTx += s.HeldTx
	c.sum.HeldRx += s.HeldRx
}

func (c *record) log(t *testing.T) {
	t.Helper()
	t.Logf("%d switches: blackout %v, max %v; from request to end %v", len(c.blackouts), quantiles(c.blackouts), c.blackouts[len(c.blackouts)-1], quantiles(c.totals))
	t.Logf("in flight %d, held to be sent %d, received %d; lost %d, reordered %d", c.sum.InFlight, c.sum.HeldTx, c.sum.HeldRx, c.sum.Lost, c.sum.Reordered)
}

// TestSwitchRedis switches redis back and forth under load, on the shared address
// and on one of its own: every reply is right.
func TestSwitchRedis(t *testing.T) {
	n := switches(t)
	for _, own := range []bool{false, true} {
		name := map[bool]string{false: "shared", true: "dedicated"}[own]
		t.Run(name, func(t *testing.T) {
			eachServerRig(t, func(t *testing.T, r *rig) {
				addr := netip.AddrPortFrom(addr4, 6379)
				flags := []string{"--name", "redis"}
				if own {
					addr = netip.MustParseAddrPort("198.18.0.130:6379")
					flags = append(flags, "--ip", addr.Addr().String())
				}
				i := r.start(flags, need(t, "redis-server"), "--protected-mode", "no", "--save", "")
				i.await("Ready to accept connections")
				replies, stop := r.load(t, addr, 8)
				var c record
				for range n {
					for _, mode := range []string{"direct", "server"} {
						count := replies.Load()
						c.add(r.switchTo("redis", mode))
						require.Eventually(t, func() bool { return replies.Load() > count+100 }, 30*time.Second, time.Millisecond)
					}
				}
				stop()
				c.log(t)
				i.terminate(0)
			})
		})
	}
}

// TestSwitchBulk switches while data flows both ways: every byte is right.
func TestSwitchBulk(t *testing.T) {
	const each = 20 << 20
	eachServerRig(t, func(t *testing.T, r *rig) {
		i, addr := r.startServer(t, "go", "--name", "web")
		var ended atomic.Bool
		var wg sync.WaitGroup
		stop := func() {
			ended.Store(true)
			wg.Wait()
		}
		defer stop()
		for _, transfer := range []func(){
			func() { download(t, r, addr, each) },
			func() { checkUpload(t, r.http(), addr, each) },
		} {
			wg.Go(func() {
				for first := true; first || !ended.Load(); first = false {
					transfer()
				}
			})
		}
		var c record
		for range switches(t) {
			for _, mode := range []string{"direct", "server"} {
				c.add(r.switchTo("web", mode))
			}
		}
		stop()
		c.log(t)
		i.terminate(143)
	})
}

// TestSwitchUDP switches while numbered datagrams go there and come back: none is
// lost, and none comes twice.
func TestSwitchUDP(t *testing.T) {
	n := switches(t)
	eachServerRig(t, func(t *testing.T, r *rig) {
		i := r.startNamed("echo", guest, "udpecho", ":7")
		i.await("ready")
		c, err := r.Client.ListenPacket("udp4", "198.18.0.1:0")
		require.NoError(t, err)
		defer c.Close()
		f := &numbered{conn: c.(*net.UDPConn), to: netip.AddrPortFrom(addr4, 7), window: make(chan struct{}, 100), seen: make(map[uint64]bool)}
		f.start(t)
		defer func() {
			f.ended.Store(true)
			_ = c.Close()
			f.wg.Wait()
		}()
		var rec record
		for range n {
			for _, mode := range []string{"direct", "server"} {
				at := f.received.Load()
				rec.add(r.switchTo("echo", mode))
				require.Eventually(t, func() bool { return f.received.Load() > at+200 }, 30*time.Second, time.Millisecond, "%s", f)
			}
		}
		f.stop(t)
		rec.log(t)
		t.Log(f)
		require.Zero(t, f.twice)
		i.terminate(143)
		i.checkStats()
	})
}

// numbered sends numbered datagrams to an echo server, as many at once as no
// queue on the way overflows with.
type numbered struct {
	conn     *net.UDPConn
	to       netip.AddrPort
	window   chan struct{}
	ended    atomic.Bool
	received atomic.Uint64
	wg       sync.WaitGroup

	sent        uint64 // of the sender, until it has ended
	seen        map[uint64]bool
	last        uint64
	twice, late int
}

func (f *numbered) String() string {
	return fmt.Sprintf("%d datagrams sent, %d came back, %d after a later one", f.sent, f.received.Load(), f.late)
}

func (f *numbered) start(t *testing.T) {
	sent := make(chan struct{})
	f.wg.Go(func() {
		defer close(sent)
		b := make([]byte, 200)
		for !f.ended.Load() {
			select {
			case f.window <- struct{}{}:
			case <-time.After(time.Minute):
				t.Error("no datagram has come back for a minute")
				return
			}
			f.sent++
			binary.BigEndian.PutUint64(b, f.sent)
			if _, err := f.conn.WriteToUDPAddrPort(b, f.to); err != nil {
				t.Errorf("datagram %d: %v", f.sent, err)
				return
			}
		}
	})
	f.wg.Go(func() { f.receive(t, sent) })
}

// receive receives until all that was sent has come back.
func (f *numbered) receive(t *testing.T, sent <-chan struct{}) {
	b, progress := make([]byte, 2048), time.Now()
	for {
		select {
		case <-sent:
			if f.received.Load() == f.sent {
				return
			}
		default:
		}
		if err := f.conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Error(err)
			return
		}
		n, _, err := f.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(progress) < time.Minute {
			continue // perhaps it was the last
		}
		if err != nil || n != 200 {
			t.Errorf("after %d datagrams: %d bytes, %v", f.received.Load(), n, err)
			return
		}
		number := binary.BigEndian.Uint64(b)
		switch {
		case f.seen[number]:
			f.twice++
			continue
		case number < f.last:
			f.late++
		}
		f.seen[number], f.last = true, max(number, f.last)
		progress = time.Now()
		f.received.Add(1)
		<-f.window
	}
}

// stop waits for the answers to all datagrams.
func (f *numbered) stop(t *testing.T) {
	t.Helper()
	f.ended.Store(true)
	f.wg.Wait()
	require.Equal(t, f.sent, f.received.Load(), "datagrams lost")
}

// modeOf is the mode that an instance is in.
func (r *rig) modeOf(name string) (mode, switching string) {
	r.t.Helper()
	var s struct {
		Instances []struct {
			Name      string `json:"name"`
			Mode      string `json:"mode"`
			Switching string `json:"switching"`
		} `json:"instances"`
	}
	r.ctl(&s, "ls")
	for _, i := range s.Instances {
		if i.Name == name {
			return i.Mode, i.Switching
		}
	}
	return "", ""
}

// beginSwitch orders a switch and does not wait for it.
func (r *rig) beginSwitch(name, mode string, flags ...string) *instance {
	c := r.Server.Command(context.Background(), filepath.Join(commands, "junction_ctl"),
		append([]string{"--json", "--socket", r.socket, "switch", name, "--mode", mode}, flags...)...)
	return launch(r.t, c, c.Cmd)
}

// TestSwitchFaults kills the network server, then the monitor, then the instance
// while it is switched, at random moments: it is in one mode afterwards and serves,
// and no queue is lost.
func TestSwitchFaults(t *testing.T) {
	rounds := max(3, switches(t)/4)
	const victims = 10 // more than there are queues
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		replies, stop := r.load(t, addr, 4)
		goesOn := func() {
			t.Helper()
			count := replies.Load()
			require.Eventually(t, func() bool { return replies.Load() > count+100 }, 30*time.Second, time.Millisecond)
		}
		modes := []string{"direct", "server"}
		rolledBack := 0
		for n := range rounds {
			before, _ := r.modeOf("redis")
			to := modes[n%2]
			server := r.status().Server.PID
			order := r.beginSwitch("redis", to)
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // a random moment
			require.NoError(t, syscall.Kill(server, syscall.SIGKILL))
			r.awaitServer(server)
			failed := order.exit() != 0
			mode, switching := r.modeOf("redis")
			require.Empty(t, switching)
			want := to
			if failed {
				want = before
				rolledBack++
				require.Contains(t, order.stdout.String(), `"reason"`)
			}
			require.Equal(t, want, mode, order.stdout)
			goesOn()
		}
		t.Logf("network server killed %d times, %d switches rolled back", rounds, rolledBack)

		for n := range rounds {
			order := r.beginSwitch("redis", modes[n%2])
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			r.monitor.kill()
			order.exit()
			goesOn()
			r.startMonitor()
			goesOn()
			r.switchTo("redis", "direct")
			goesOn()
			if n%2 == 1 {
				r.switchTo("redis", "server")
			}
		}
		stop()

		for range victims {
			i := r.startNamed("victim", guest, "tcpecho", ":7")
			i.await("ready")
			order := r.beginSwitch("victim", "direct")
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			i.kill()
			order.exit()
			require.Eventually(t, func() bool { mode, _ := r.modeOf("victim"); return mode == "" }, 30*time.Second, time.Millisecond)
		}
		r.switchTo("redis", "server")
		require.Eventually(t, func() bool { return r.directQueues() == 0 }, 30*time.Second, 10*time.Millisecond, "queues left over")
	})
}

// directQueues counts the queues of instances.
func (r *rig) directQueues() int {
	r.t.Helper()
	var s struct {
		Queues []json.RawMessage `json:"direct_queues"`
	}
	r.ctl(&s, "status")
	return len(s.Queues)
}
