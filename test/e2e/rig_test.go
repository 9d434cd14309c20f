package e2e

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// The instance's addresses.
var (
	addr4 = lab.ServerAddr4.Addr()
	addr6 = lab.ServerAddr6.Addr()
)

// rig is a lab whose server NIC an instance takes.
type rig struct {
	*lab.Lab
	variant
	t testing.TB

	// In server mode: the monitor, which has the NIC instead, and its socket.
	monitor *instance
	socket  string
	stopped bool // an instance is, on purpose: a monitor that starts does not get it back
}

func newRig(t testing.TB, v variant, o lab.Options) *rig {
	t.Helper()
	r := &rig{Lab: lab.ForTest(t, o), variant: v, t: t}
	// The client begins to ask for the instance's MAC address before there is
	// one to answer; by default it repeats the question after a second only.
	for _, family := range []string{"ipv4", "ipv6"} {
		require.NoError(t, r.Client.Sysctl("net/"+family+"/neigh/"+lab.ClientNIC+"/retrans_time_ms", "50"))
	}
	if v.driver == serverMode {
		r.startMonitor()
	}
	return r
}

// flags are those of an instance on the rig's NIC.
func (r *rig) flags(more ...string) []string {
	if r.driver == serverMode {
		return append([]string{"--engine", r.engine, "--mode", "server", "--socket", r.socket, "--stats=json"}, more...)
	}
	return append([]string{
		"--engine", r.engine, "--mode", "direct", "--nic", lab.ServerNIC, "--driver", r.driver,
		"--ip", lab.ServerAddr4.String(), "--ip", lab.ServerAddr6.String(), "--stats=json",
	}, more...)
}

// command returns a junction_run command in the server's namespace.
func (r *rig) command(flags []string, program ...string) *lab.Cmd {
	return r.Server.Command(context.Background(), junctionRun, args(r.flags(flags...), program)...)
}

// start starts an instance on the rig's NIC.
func (r *rig) start(flags []string, program ...string) *instance {
	r.t.Helper()
	c := r.command(flags, program...)
	return launch(r.t, c, c.Cmd)
}

// dial connects from the client's namespace.
func (r *rig) dial(addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.Client.DialContext(ctx, "tcp", addr.String())
}

// mustDial is dial with a deadline on the connection, closed when the test ends.
func (r *rig) mustDial(addr netip.AddrPort, within time.Duration) net.Conn {
	r.t.Helper()
	c, err := r.dial(addr)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	require.NoError(r.t, c.SetDeadline(time.Now().Add(within)))
	return c
}

// awaitPort waits until the instance accepts connections. No event crosses the
// namespaces, so it tries again and again.
func (r *rig) awaitPort(i *instance, addr netip.AddrPort) {
	r.t.Helper()
	deadline := time.Now().Add(readyTimeout)
	for {
		c, err := r.dial(addr)
		if err == nil {
			c.Close()
			return
		}
		require.Truef(r.t, i.running(), "the instance ended before %v was open", addr)
		require.Truef(r.t, time.Now().Before(deadline), "%v is not open: %v", addr, err)
		time.Sleep(20 * time.Millisecond) // between attempts
	}
}

// http returns a client in the client's namespace.
func (r *rig) http() *http.Client {
	tr := &http.Transport{DialContext: r.Client.DialContext, MaxIdleConnsPerHost: 16, DisableCompression: true}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute}
}

// client runs a program in the client's namespace to its end and returns its
// standard output. It must succeed.
func (r *rig) client(program string, args ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c := r.Client.Command(ctx, need(r.t, program), args...)
	stdout, stderr := newOutput(), newOutput()
	c.Stdout, c.Stderr = stdout, stderr
	err := c.Run()
	require.NoErrorf(r.t, err, "%v\n%s\n%s", c.Args, stdout, stderr)
	return stdout.String()
}

// workDir makes a directory that every user may enter, as t.TempDir's is not.
func workDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func writeFile(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, data, 0o644))
	return p
}
