package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// kills is how often the network server is killed: JUNCTION_E2E_KILLS or 20.
func kills(t *testing.T) int {
	n := 20
	if testing.Short() {
		n = 5
	}
	if s := os.Getenv("JUNCTION_E2E_KILLS"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	return n
}

// load runs connections that set and get values without pause and compare all
// of them, until stop is called, which reports what went wrong.
func (r *rig) load(t *testing.T, addr netip.AddrPort, connections int) (replies *atomic.Uint64, stop func()) {
	replies = new(atomic.Uint64)
	var ended atomic.Bool
	var wg sync.WaitGroup
	var conns []net.Conn
	for n := range connections {
		conn := r.mustDial(addr, 10*time.Minute)
		conns = append(conns, conn)
		c := newRESP(conn)
		wg.Go(func() {
			for k := n; !ended.Load(); k += connections {
				if err := setAndGet(c, k%10_000, 1); err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
				replies.Add(1)
			}
		})
	}
	return replies, func() {
		t.Helper()
		ended.Store(true)
		for _, c := range conns {
			_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // for the last reply
		}
		wg.Wait()
	}
}

// webLoad starts nginx, and clients that fetch files over connections that stay, and
// over a new one each time, and compare them, until stop is called, which reports what
// went wrong.
func (r *rig) webLoad(t *testing.T) (replies *atomic.Uint64, stop func()) {
	t.Helper()
	_, addr := r.startServer(t, "nginx", "--name", "nginx")
	replies = new(atomic.Uint64)
	var ended atomic.Bool
	var wg sync.WaitGroup
	t.Cleanup(func() { // of a test that failed, when its connections are closed
		ended.Store(true)
		wg.Wait()
	})
	client := func(what string, fetch func() error) {
		wg.Go(func() {
			for !ended.Load() {
				if err := fetch(); err != nil {
					t.Errorf("nginx, %s: %v", what, err)
					return
				}
				replies.Add(1)
			}
		})
	}
	for range 2 {
		conn := r.mustDial(addr, 10*time.Minute)
		c := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
		client("a connection that stays", func() error { return getFile(c) })
	}
	client("a new connection", func() error { return oneRequest(r, addr, "close") })
	return replies, func() {
		t.Helper()
		ended.Store(true)
		wg.Wait()
	}
}

// TestNetserverKilled kills the network server with SIGKILL, at random moments,
// under load from outside and between instances. No connection breaks, no value is
// wrong, and a station that does not know our MAC address learns it.
func TestNetserverKilled(t *testing.T) {
	n := kills(t)
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		replies, stop := r.load(t, addr, 8)
		pages, stopWeb := r.webLoad(t)
		between := r.startNamed("between", need(t, "redis-benchmark"), "-h", addr4.String(), "-l", "-q", "-c", "4", "-t", "get")
		require.Eventually(t, func() bool { return len(r.status().Instances) == 3 }, readyTimeout, 5*time.Millisecond)
		files, memory := openFiles(t, r.monitor.cmd.Process.Pid), resident(t, r.monitor.cmd.Process.Pid)
		var outages, firsts []time.Duration
		for range n {
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond) // a random moment
			before := r.status()
			count, pagesBefore := replies.Load(), pages.Load()
			require.NoError(t, syscall.Kill(before.Server.PID, syscall.SIGKILL))
			killed := time.Now()
			r.client("ip", "neigh", "flush", "dev", lab.ClientNIC)
			after := r.awaitServer(before.Server.PID)
			outages = append(outages, time.Duration(after.Server.LastOutage))
			c := r.mustDial(addr, time.Minute) // needs our MAC address
			firsts = append(firsts, time.Since(killed))
			require.NoError(t, setAndGet(newRESP(c), 20_000, 10))
			c.Close()
			require.Eventually(t, func() bool { return replies.Load() > count+100 && pages.Load() > pagesBefore+20 }, time.Minute, time.Millisecond)
		}
		stop()
		stopWeb()
		require.True(t, between.running(), "the load between instances ended")
		require.EqualValues(t, n, r.status().Server.Restarts)
		require.LessOrEqual(t, openFiles(t, r.monitor.cmd.Process.Pid), files+2, "open files of the monitor")
		const more = 32 << 20 // a heap may grow until it is collected
		require.LessOrEqual(t, resident(t, r.monitor.cmd.Process.Pid), memory+more, "memory of the monitor")
		t.Logf("%d kills, until the next server is ready: %v", n, quantiles(outages))
		t.Logf("until a new connection stands, with address resolution: %v", quantiles(firsts))
	})
}

func quantiles(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("median %v, p99 %v, max %v", d[len(d)/2], d[len(d)*99/100], d[len(d)-1])
}

// openFiles counts a process's descriptors.
func openFiles(t *testing.T, pid int) int {
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	require.NoError(t, err)
	return len(fds)
}

// resident is a process's memory in bytes (proc_pid_statm(5)).
func resident(t *testing.T, pid int) int {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	require.NoError(t, err)
	fields := strings.Fields(string(b))
	require.Greater(t, len(fields), 1)
	pages, err := strconv.Atoi(fields[1])
	require.NoError(t, err)
	return pages * os.Getpagesize()
}

// TestNetserverHangs stops the network server: the monitor finds out and
// replaces it, and connections go on.
func TestNetserverHangs(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis")
		replies, stop := r.load(t, addr, 4)
		pages, stopWeb := r.webLoad(t)
		before := r.status()
		require.NoError(t, syscall.Kill(before.Server.PID, syscall.SIGSTOP))
		stopped := time.Now()
		after := r.awaitServer(before.Server.PID)
		t.Logf("replaced after %v", time.Since(stopped))
		require.EqualValues(t, 1, after.Server.Hangs)
		count, pagesBefore := replies.Load(), pages.Load()
		require.Eventually(t, func() bool { return replies.Load() > count+100 && pages.Load() > pagesBefore+20 }, time.Minute, time.Millisecond)
		stop()
		stopWeb()

		var restarted struct {
			PID int `json:"pid"`
		}
		r.ctl(&restarted, "restart", "netserver")
		require.NotEqual(t, after.Server.PID, restarted.PID)
		checkRedis(t, r, addr)
	})
}

// TestMonitorKilled kills the monitor under load: no packet is lost for that.
// The next one finds all as it was: instances, ports and the network server,
// whose end it sees, and what ended meanwhile is free.
func TestMonitorKilled(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis", "--name", "redis")
		other := r.startNamed("other", guest, "tcpecho", ":7")
		other.await("ready")
		replies, stop := r.load(t, addr, 4)
		before, owners, frames := r.status(), r.portOwners(), r.checkAccounts()

		r.monitor.kill()
		count := replies.Load()
		require.Eventually(t, func() bool { return replies.Load() > count+500 }, 30*time.Second, time.Millisecond, "without a monitor")
		other.awaitCond(other.stderr, contains("junctiond is gone"), "a warning")
		r.startMonitor()
		other.awaitCond(other.stderr, contains("junctiond is there again"), "a warning")
		after := r.status()
		require.Equal(t, before.Server.PID, after.Server.PID, "the network server goes on")
		require.Equal(t, before.Instances, after.Instances)
		require.Equal(t, owners, r.portOwners())
		require.Greater(t, r.checkAccounts().Uplink.In, frames.Uplink.In, "its counters too")

		// What an instance needs of a monitor works with the new one.
		taken := r.startNamed("taken", guest, "tcpecho", ":7")
		require.NotZero(t, taken.exit())
		client := r.startNamed("client", guest, "dial", "20", "198.18.0.2:7")
		require.Zero(t, client.exit())

		// An instance that ends without a monitor leaves nothing to the next.
		r.monitor.kill()
		other.kill()
		r.startMonitor()
		require.NotContains(t, r.portOwners(), "tcp/198.18.0.2:7")
		again := r.startNamed("again", guest, "tcpecho", ":7")
		again.await("ready")

		// The network server that it has not started itself is replaced too.
		require.NoError(t, syscall.Kill(before.Server.PID, syscall.SIGKILL))
		r.awaitServer(before.Server.PID)
		count = replies.Load()
		require.Eventually(t, func() bool { return replies.Load() > count+500 }, 30*time.Second, time.Millisecond)

		// Both at once: instances keep their rings and ports.
		last := r.status()
		r.monitor.kill()
		require.NoError(t, syscall.Kill(last.Server.PID, syscall.SIGKILL))
		r.startMonitor()
		require.Equal(t, last.Instances, r.status().Instances)
		require.Contains(t, r.portOwners(), "tcp/198.18.0.2:6379")
		count = replies.Load()
		require.Eventually(t, func() bool { return replies.Load() > count+500 }, 30*time.Second, time.Millisecond)
		stop()
	})
}
