package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// eachServerRig runs f for each engine on a rig in server mode.
func eachServerRig(t *testing.T, f func(t *testing.T, r *rig)) {
	eachEngine(t, func(t *testing.T, engine string) {
		f(t, newRig(t, variant{engine: engine, driver: serverMode}, lab.Options{}))
	})
}

// startNamed starts an instance with a name.
func (r *rig) startNamed(name string, program ...string) *instance {
	r.t.Helper()
	return r.start([]string{"--name", name}, program...)
}

// TestSharedAddress: instances on one address, each with ports of its own.
func TestSharedAddress(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		redis := []string{need(t, "redis-server"), "--protected-mode", "no", "--save", ""}
		first := r.start([]string{"--name", "first", "--priority", "lc"}, redis...)
		first.await("Ready to accept connections")
		web := r.startNamed("web", guest, "http", ":8080")
		web.await("ready")
		checkRedis(t, r, netip.AddrPortFrom(addr4, 6379))
		checkRedis(t, r, netip.AddrPortFrom(addr6, 6379))
		checkHasher(t, r, netip.AddrPortFrom(addr4, 8080))

		var is struct {
			Priority string `json:"priority"`
			Weight   int    `json:"weight"`
		}
		r.ctl(&is, "show", "first")
		require.Equal(t, "lc", is.Priority)
		require.Equal(t, 8, is.Weight)

		second := r.startNamed("second", redis...)
		require.NotZero(t, second.exit(), "the port is another's")
		require.Contains(t, second.stdout.String(), "Address already in use")

		owners := r.portOwners()
		require.Equal(t, map[string]string{
			"tcp/198.18.0.2:6379": "first", "tcp/[fd00:18::2]:6379": "first",
			"tcp/198.18.0.2:8080": "web", "tcp/[fd00:18::2]:8080": "web",
		}, owners)

		// A killed instance leaves nothing: the next one has the port at once.
		first.signal(syscall.SIGKILL)
		first.exit()
		third := r.startNamed("third", redis...)
		third.await("Ready to accept connections")
		checkRedis(t, r, netip.AddrPortFrom(addr4, 6379))
		third.terminate(0)
		third.checkStats()
		web.terminate(143)
		require.Empty(t, r.portOwners())
	})
}

// TestNoMonitor: without one, server mode says what to do.
func TestNoMonitor(t *testing.T) {
	socket := filepath.Join(workDir(t), "nobody.sock")
	start(t, []string{"--mode", "server", "--socket", socket}, "true").requireError(1, socket, "start junctiond")
}

// TestSecondMonitor: one that is started for a NIC that another serves ends, and says
// who that is.
func TestSecondMonitor(t *testing.T) {
	r := newRig(t, variant{engine: engines[0], driver: serverMode}, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := r.Server.Command(ctx, filepath.Join(commands, "junctiond"), "--nic", lab.ServerNIC, "--addr", "198.18.0.9/24",
		"--socket", filepath.Join(workDir(t), "second.sock")).CombinedOutput()
	var ended *exec.ExitError
	require.ErrorAs(t, err, &ended)
	require.Equal(t, 1, ended.ExitCode(), string(out))
	require.Contains(t, string(out), fmt.Sprintf("%s is held by junctiond (pid %d)", lab.ServerNIC, r.status().PID))
}

// TestRefusedConnection: what nobody listens for is refused as a host would.
func TestRefusedConnection(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		for _, a := range []netip.Addr{addr4, addr6} {
			_, err := r.dial(netip.AddrPortFrom(a, 81))
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			u, err := r.Client.DialContext(t.Context(), "udp", netip.AddrPortFrom(a, 81).String())
			require.NoError(t, err)
			defer u.Close()
			require.NoError(t, u.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = u.Write([]byte("x"))
			require.NoError(t, err)
			_, err = u.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}
	})
}

// TestClientInstances: instances that only connect, on the shared address, to
// the wire and to each other. Ports of theirs outlive sockets only in TIME-WAIT.
func TestClientInstances(t *testing.T) {
	const connections = 200
	eachServerRig(t, func(t *testing.T, r *rig) {
		l, err := r.Client.Listen("tcp", lab.ClientAddr4.Addr().String()+":7")
		require.NoError(t, err)
		defer l.Close()
		go echoAll(l)
		server := r.startNamed("server", guest, "tcpecho", ":7")
		server.await("ready")
		var clients []*instance
		for n, to := range []string{l.Addr().String(), l.Addr().String(), "198.18.0.2:7", "[fd00:18::2]:7"} {
			clients = append(clients, r.startNamed(fmt.Sprint("client", n), guest, "dial", fmt.Sprint(connections), to))
		}
		for _, c := range clients {
			require.Zero(t, c.exit())
			require.Contains(t, c.stdout.String(), fmt.Sprint(connections, " connections"))
			c.checkStats()
		}
		require.Equal(t, map[string]string{"tcp/198.18.0.2:7": "server", "tcp/[fd00:18::2]:7": "server"}, r.portOwners())
	})
}

// echoAll serves connections until the listener is closed.
func echoAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// TestDedicatedAddresses: two instances with the same port on addresses of their
// own, beside one on the shared address, and to each other.
func TestDedicatedAddresses(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		for n, ip := range []string{"198.18.0.130", "198.18.0.131"} {
			i := r.start([]string{"--name", fmt.Sprint("web", n), "--ip", ip}, guest, "http", ":8080")
			i.await("ready")
			checkHasher(t, r, netip.AddrPortFrom(netip.MustParseAddr(ip), 8080))
		}
		taken := r.start([]string{"--ip", "198.18.0.130"}, guest, "http", ":8080")
		require.Equal(t, 1, taken.exit())
		require.Contains(t, taken.stderr.String(), "198.18.0.130 is dedicated to instance")
		outside := r.start([]string{"--ip", "198.18.0.9"}, guest, "http", ":8080")
		require.Equal(t, 1, outside.exit())
		require.Contains(t, outside.stderr.String(), "in none of the networks")

		echo := r.start([]string{"--ip", "198.18.0.132"}, guest, "tcpecho", ":7")
		echo.await("ready")
		shared := r.start(nil, guest, "dial", "50", "198.18.0.132:7")
		require.Zero(t, shared.exit())
		own := r.start([]string{"--ip", "198.18.0.133"}, guest, "dial", "50", "198.18.0.132:7")
		require.Zero(t, own.exit())
	})
}
