package e2e

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/internal/lab"
)

// TestRecovery measures what connections notice of a network server that is
// killed: how long one that stands goes without a reply, how long a new one takes
// from a client that does not know our MAC address. Nothing is lost at a kill, so
// that neither waits for a retransmission.
func TestRecovery(t *testing.T) {
	n := kills(t)
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		const connections = 8
		p := r.pulse(t, addr, connections)
		between := r.startNamed("between", need(t, "redis-benchmark"), "-h", addr4.String(), "-l", "-q", "-c", "4", "-t", "get")
		require.Eventually(t, func() bool { return len(r.status().Instances) == 2 }, readyTimeout, 5*time.Millisecond)
		var outages, calm, first, slowest, fresh []time.Duration
		for range n {
			time.Sleep(rand.N(100 * time.Millisecond)) // a random moment
			before := r.status().Server.PID
			p.begin(time.Now())
			calm = append(calm, p.await(t, connections)[connections-1])
			r.forgetNeighbours(t)
			require.NoError(t, syscall.Kill(before, syscall.SIGKILL))
			killed := time.Now()
			p.begin(killed)
			r.connect(t, addr).Close()
			fresh = append(fresh, time.Since(killed))
			after := p.await(t, connections)
			first, slowest = append(first, after[0]), append(slowest, after[connections-1])
			outages = append(outages, time.Duration(r.awaitServer(before).Server.LastOutage))
		}
		p.stop()
		require.True(t, between.running(), "the load between instances ended")
		t.Logf("%d kills, from the end of the server to the next one's being ready: %v", n, quantiles(outages))
		t.Logf("from the kill to a reply to what was asked after it, the first of %d connections: %v", connections, quantiles(first))
		t.Logf("the last of them: %v; without a kill: %v", quantiles(slowest), quantiles(calm))
		t.Logf("until a new connection stands, with address resolution: %v", quantiles(fresh))
	})
}

// pulse is load of which each connection tells when it has got replies.
type pulse struct {
	since atomic.Int64 // what is to be told about, in nanoseconds since 1970
	stop  func()

	mu    sync.Mutex
	news  *sync.Cond
	tells []time.Duration // from since to the first reply to what was asked later
}

// pulse sets and gets values without pause over connections, and compares them.
func (r *rig) pulse(t *testing.T, addr netip.AddrPort, connections int) *pulse {
	p := &pulse{}
	p.news = sync.NewCond(&p.mu)
	var ended atomic.Bool
	var wg sync.WaitGroup
	var conns []net.Conn
	for n := range connections {
		conn := r.mustDial(addr, 10*time.Minute)
		conns = append(conns, conn)
		c := newRESP(conn)
		wg.Go(func() {
			var told int64
			for k := n; !ended.Load(); k += connections {
				asked := time.Now().UnixNano()
				if err := setAndGet(c, k%10_000, 1); err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
				if since := p.since.Load(); told < since && since <= asked {
					told = since
					p.tell(since)
				}
			}
		})
	}
	p.stop = sync.OnceFunc(func() {
		ended.Store(true)
		for _, c := range conns {
			_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // for the last reply
		}
		wg.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

func (p *pulse) tell(since int64) {
	took := time.Duration(time.Now().UnixNano() - since)
	p.mu.Lock()
	defer p.mu.Unlock()
	if since == p.since.Load() {
		p.tells = append(p.tells, took)
		p.news.Signal()
	}
}

// begin has connections tell about what they ask from a moment on.
func (p *pulse) begin(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tells = nil
	p.since.Store(since.UnixNano())
}

// await waits until all connections have had a reply to what they asked since
// then, and returns how long after it, the shortest first.
func (p *pulse) await(t *testing.T, connections int) []time.Duration {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	late := time.AfterFunc(readyTimeout, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.tells = nil
		p.since.Store(0)
		p.news.Signal()
	})
	defer late.Stop()
	for len(p.tells) < connections && p.since.Load() != 0 {
		p.news.Wait()
	}
	require.Len(t, p.tells, connections, "connections that go on")
	slices.Sort(p.tells)
	return p.tells
}

// connect dials until somebody answers: a client gives a MAC address up that it
// does not learn in 150 ms, here.
func (r *rig) connect(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(readyTimeout); ; {
		c, err := r.dial(addr)
		if err == nil || time.Now().After(deadline) || !errors.Is(err, syscall.EHOSTUNREACH) {
			require.NoError(t, err)
			return c
		}
	}
}

// forgetNeighbours makes the client's machine ask for our MAC address anew.
func (r *rig) forgetNeighbours(t *testing.T) {
	t.Helper()
	require.NoError(t, r.Client.Do(func() error {
		link, err := netlink.LinkByName(lab.ClientNIC)
		if err != nil {
			return err
		}
		known, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		for _, n := range known {
			if derr := netlink.NeighDel(&n); err == nil {
				err = derr
			}
		}
		return err
	}))
}

// TestMonitorKilledWithServer kills the network server, and some moments later the
// monitor, which is just about to have the next one serve: whichever process has
// the uplink by then, the next monitor finds it, and connections go on.
func TestMonitorKilledWithServer(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		const connections = 2
		p := r.pulse(t, addr, connections)
		for range 3 {
			p.begin(time.Now())
			p.await(t, connections)
			server := r.status().Server.PID
			require.NoError(t, syscall.Kill(server, syscall.SIGKILL))
			time.Sleep(rand.N(8 * time.Millisecond)) // any moment of the change
			r.monitor.kill()
			r.startMonitor()
			p.begin(time.Now())
			p.await(t, connections)
			after := r.awaitServer(server)
			require.Len(t, after.Instances, 1)
			require.Zero(t, after.Server.Hangs)
		}
		p.stop()
	})
}
