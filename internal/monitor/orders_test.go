package monitor

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
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
	require.NoError(t, give(t, socket, "limit", wire.Limit{ID: 1, Rate: 1000}, &i))
	require.EqualValues(t, 1000, mustAsk[Status](t, socket, "status").Instances[0].Rate)
	require.Error(t, give(t, socket, "limit", wire.Limit{ID: 2, Rate: 1000}, &i))
	require.Error(t, give(t, socket, "limit", "nonsense", &i))
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
	}, 10*time.Second, 5*time.Millisecond)
	require.Contains(t, string(body), "junction_instances 1\n")
	require.Contains(t, string(body), "junction_netserver_ready 1\n")
	require.Contains(t, string(body), `junction_ports{id="1",name="web"} 0`)
	http.DefaultClient.CloseIdleConnections()
}
