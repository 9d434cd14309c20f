package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/internal/lab"
)

// TestNetserverUpgraded replaces the network server's program under load, to and
// fro. No connection breaks; a program that does not start disturbs nothing.
func TestNetserverUpgraded(t *testing.T) {
	upgrades := 20
	if testing.Short() {
		upgrades = 4
	}
	eachServerRig(t, func(t *testing.T, r *rig) {
		_, addr := r.startServer(t, "redis")
		_, stop := r.load(t, addr, 4)
		pages, stopWeb := r.webLoad(t)
		longest, end := r.slowestReply(t, addr)
		dir := t.TempDir()
		first := filepath.Join(commands, "netserver")
		second, broken := filepath.Join(dir, "second"), filepath.Join(dir, "broken")
		require.NoError(t, os.Symlink(first, second))
		require.NoError(t, os.WriteFile(broken, []byte("#!/bin/sh\nexit 3\n"), 0o755))
		var outages, replies []time.Duration
		pid := r.status().Server.PID
		for i := range upgrades {
			longest.Store(0)
			var after struct {
				PID        int   `json:"pid"`
				LastOutage int64 `json:"last_outage_ns"`
			}
			r.ctl(&after, "upgrade", "netserver", []string{second, first}[i%2])
			require.NotEqual(t, pid, after.PID)
			pid = after.PID
			outages = append(outages, time.Duration(after.LastOutage))
			replies = append(replies, time.Duration(longest.Load()))
		}
		c := r.Server.Command(t.Context(), filepath.Join(commands, "junction_ctl"), "--socket", r.socket, "upgrade", "netserver", broken)
		text, err := c.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(text), "exit status 3")
		require.Equal(t, pid, r.status().Server.PID, "the one before goes on")
		count := pages.Load()
		require.Eventually(t, func() bool { return pages.Load() > count+20 }, time.Minute, time.Millisecond)
		end()
		stop()
		stopWeb()
		t.Logf("%d upgrades, from one server's end until the next is ready: %v", upgrades, quantiles(outages))
		t.Logf("the slowest reply meanwhile: %v", quantiles(replies))
	})
}

// slowestReply asks without pause over one connection and keeps the longest time
// that a reply took, until end is called.
func (r *rig) slowestReply(t *testing.T, addr netip.AddrPort) (longest *atomic.Int64, end func()) {
	c := newRESP(r.mustDial(addr, 10*time.Minute))
	longest = new(atomic.Int64)
	var over atomic.Bool
	done := make(chan error, 1)
	go func() {
		for !over.Load() {
			asked := time.Now()
			if err := setAndGet(c, 30_000, 1); err != nil {
				done <- err
				return
			}
			if took := int64(time.Since(asked)); took > longest.Load() {
				longest.Store(took)
			}
		}
		done <- nil
	}()
	return longest, func() {
		t.Helper()
		over.Store(true)
		require.NoError(t, <-done)
	}
}

// TestNothingIsLeftOfTheUplink: with the monitor and the network server dead, the
// NIC is free; what else a monitor leaves when it dies, the next one finds; and
// one that ends as it should leaves nothing.
func TestNothingIsLeftOfTheUplink(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		require.True(t, r.hasXDP(), "the steering program")
		before := r.links()
		for range 3 {
			server := r.status().Server.PID
			r.monitor.kill()
			require.True(t, r.hasXDP(), "the network server goes on")
			require.NoError(t, syscall.Kill(server, syscall.SIGKILL))
			require.Eventually(t, func() bool { return !r.hasXDP() }, 30*time.Second, time.Millisecond, "a program is left on the NIC")
			r.orphan()
			r.startMonitor()
			require.Equal(t, before, r.links())
			require.True(t, r.hasXDP())
		}

		// Taken over again and again from the network server that goes on.
		server := r.status().Server.PID
		var files []int
		for range 6 {
			r.monitor.kill()
			r.startMonitor()
			files = append(files, openFiles(t, server))
		}
		require.Equal(t, server, r.status().Server.PID)
		t.Log("open files of the network server after each:", files)
		require.LessOrEqual(t, slices.Max(files[3:]), slices.Max(files[:3])+1, "open files of the network server")
		r.monitor.terminate(0)
		require.Eventually(t, func() bool { return !r.hasXDP() }, 30*time.Second, time.Millisecond)
		require.Equal(t, before, r.links())
		require.NoDirExists(t, r.socket+".state")
		r.startMonitor()
		_, addr := r.startServer(t, "redis")
		checkRedis(t, r, addr)
	})
}

// orphan makes what a monitor that was killed leaves of an instance's direct queue.
func (r *rig) orphan() {
	r.t.Helper()
	require.NoError(r.t, r.Server.Do(func() error {
		l, err := netlink.LinkByName(lab.ServerNIC)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "jvf" + strconv.Itoa(l.Attrs().Index) + ".0o"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: strings.TrimSuffix(attrs.Name, "o") + "i"})
	}))
}

// links are the names of the server's devices.
func (r *rig) links() []string {
	r.t.Helper()
	names, err := r.Server.Links()
	require.NoError(r.t, err)
	slices.Sort(names)
	return names
}

// hasXDP tells whether a program is on the server's NIC.
func (r *rig) hasXDP() (has bool) {
	r.t.Helper()
	require.NoError(r.t, r.Server.Do(func() error {
		l, err := netlink.LinkByName(lab.ServerNIC)
		has = err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
		return err
	}))
	return has
}

// TestDirectQueueAfterMonitor: an instance in direct mode goes on without a monitor
// and with the next one, which can switch it; the queue of one that ended meanwhile
// is gone.
func TestDirectQueueAfterMonitor(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		before := r.links()
		_, addr := r.startServer(t, "redis", "--name", "redis")
		gone := r.startNamed("gone", guest, "tcpecho", ":7")
		gone.await("ready")
		r.switchTo("redis", "direct")
		r.switchTo("gone", "direct")
		require.Equal(t, 2, count(r.links(), "o"))
		replies, stop := r.load(t, addr, 4)
		goesOn := func() {
			t.Helper()
			count := replies.Load()
			require.Eventually(t, func() bool { return replies.Load() > count+100 }, 30*time.Second, time.Millisecond)
		}
		r.monitor.kill()
		goesOn()
		gone.kill()
		r.startMonitor()
		goesOn()
		mode, _ := r.modeOf("redis")
		require.Equal(t, "direct", mode)
		require.Equal(t, 1, count(r.links(), "o"))
		r.switchTo("redis", "server")
		require.Equal(t, before, r.links())
		r.switchTo("redis", "direct")
		goesOn()
		r.switchTo("redis", "server")
		goesOn()
		stop()
	})
}

// TestStoppedInstance: an instance that does not answer the next monitor holds up
// nobody, keeps what it had, and is back when it goes on.
func TestStoppedInstance(t *testing.T) {
	r := newRig(t, variant{engine: engines[0], driver: serverMode}, lab.Options{})
	asleep, awake := r.startNamed("asleep", guest, "tcpecho", ":7"), r.startNamed("awake", guest, "http", ":8080")
	asleep.await("ready")
	awake.await("ready")
	asleep.signal(syscall.SIGSTOP)
	r.stopped = true
	r.monitor.kill()
	r.startMonitor()
	checkHasher(t, r, netip.AddrPortFrom(addr4, 8080))
	fresh := r.startNamed("fresh", guest, "http", ":8081")
	fresh.await("ready")
	checkHasher(t, r, netip.AddrPortFrom(addr4, 8081))
	require.Equal(t, map[string]string{"asleep": "awaited", "awake": "server", "fresh": "server"}, r.status().modes())
	require.Equal(t, "asleep", r.portOwners()["tcp/198.18.0.2:7"])
	taken := r.startNamed("taken", guest, "tcpecho", ":7")
	require.NotZero(t, taken.exit(), "its port is kept")

	asleep.signal(syscall.SIGCONT)
	r.awaitAll()
	require.Equal(t, "server", r.status().modes()["asleep"])
	c := r.mustDial(netip.AddrPortFrom(addr4, 7), time.Minute)
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, err)
}

// TestQueuesComeBack: a NIC of which a monitor took fewer queues gets them back when
// a successor ends as it should, whoever has died before.
func TestQueuesComeBack(t *testing.T) {
	r := newRig(t, variant{engine: engines[0], driver: "afxdp"}, lab.Options{Queues: 2})
	r.driver = serverMode
	// A veth cannot receive on fewer queues than its peer sends on.
	out, err := r.Client.Command(t.Context(), need(t, "ethtool"), "-L", lab.ClientNIC, "tx", "1").CombinedOutput()
	require.NoError(t, err, string(out))
	one := []string{"--nic", lab.ServerNIC + ":1"}
	r.startMonitor(one...)
	require.Equal(t, "1", r.combined())
	r.monitor.kill()
	r.startMonitor(one...)
	require.Equal(t, "1", r.combined())
	server := r.status().Server.PID
	r.monitor.kill()
	require.NoError(t, syscall.Kill(server, syscall.SIGKILL))
	r.startMonitor(one...)
	require.Equal(t, "1", r.combined())
	r.monitor.terminate(0)
	require.Equal(t, "2", r.combined())
}

// combined is how many receive queues ethtool says that the server's NIC has.
func (r *rig) combined() string {
	r.t.Helper()
	out, err := r.Server.Command(r.t.Context(), need(r.t, "ethtool"), "-l", lab.ServerNIC).Output()
	require.NoError(r.t, err)
	_, now, _ := strings.Cut(string(out), "Current hardware settings:")
	for line := range strings.Lines(now) {
		if f := strings.Fields(line); len(f) == 2 && (f[0] == "RX:" || f[0] == "Combined:") && f[1] != "0" && f[1] != "n/a" {
			return f[1]
		}
	}
	r.t.Fatalf("no queues in %q", out)
	return ""
}
