package monitor

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/direct/steer"
	"junction/direct/steer/scope"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/portmap"
	"junction/portmap/table"
	"junction/switch/protocol"
)

func mustParse(t *testing.T, list string) *scope.Ports {
	t.Helper()
	p, err := scope.Parse(list)
	require.NoError(t, err)
	return p
}

// orderPorts asks for a switch to direct mode of some ports, of all with nil.
func orderPorts(t *testing.T, socket string, id uint32, ports *scope.Ports) wire.SwitchResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o, err := client.DialOperator(ctx, socket)
	require.NoError(t, err)
	defer o.Close()
	r, err := o.Switch(ctx, wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: protocol.Direct, Ports: ports})
	require.NoError(t, err)
	return r
}

// portModes maps "tcp/ENDPOINT" to the port's mode.
func portModes(t *testing.T, socket string) map[string]string {
	t.Helper()
	modes := make(map[string]string)
	for _, p := range mustAsk[[]PortStatus](t, socket, "ports") {
		modes[p.Proto+"/"+p.Endpoint.String()] = p.Mode
	}
	return modes
}

// TestSwitchPorts: what is in direct mode is nothing, a list of ports, or all; from list
// to list it goes by way of server mode, which the answer says; who looks sees the mode
// of each port, also of one that was bound later or is bound again.
func TestSwitchPorts(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	one, two := join(t, socket, "one"), join(t, socket, "two")
	defer answers(one, 0)()
	defer answers(two, 0)()
	id := one.Lease().ID
	bind := func(proto table.Proto, port uint16) portmap.Socket {
		t.Helper()
		s, _, err := one.Bind(t.Context(), proto, shared4.Addr(), port, portmap.ForBind, false)
		require.NoError(t, err)
		return s
	}
	bind(table.TCP, 80)
	bind(table.UDP, 80)
	listed := func(want string) {
		t.Helper()
		i := mustAsk[Status](t, socket, "status").Instances[0]
		require.Equal(t, "direct", i.Mode)
		require.Equal(t, want, i.DirectPorts.String())
	}
	at := func(port uint16) string { return "/" + netip.AddrPortFrom(shared4.Addr(), port).String() }

	web := mustParse(t, "80/tcp,443")
	r := orderPorts(t, socket, id, web)
	require.Empty(t, r.Reason)
	require.Equal(t, "80/tcp,443", r.Ports.String())
	require.False(t, r.ViaServer)
	f.mu.Lock()
	require.True(t, f.queues[id].ports.Equal(web))
	f.mu.Unlock()
	listed("80/tcp,443")
	late := bind(table.TCP, 443)
	bind(table.TCP, 81)
	want := map[string]string{"tcp" + at(80): "direct", "udp" + at(80): "server", "tcp" + at(443): "direct", "tcp" + at(81): "server"}
	require.Equal(t, want, portModes(t, socket))
	require.NoError(t, one.Release(t.Context(), late))
	bind(table.TCP, 443)
	require.Equal(t, want, portModes(t, socket))

	r = orderPorts(t, socket, id, mustParse(t, "443,80/tcp"))
	require.Empty(t, r.Steps, "it is as wanted")
	r = orderPorts(t, socket, id, mustParse(t, "81"))
	require.Empty(t, r.Reason)
	require.True(t, r.ViaServer)
	require.Equal(t, [2]protocol.Mode{protocol.Direct, protocol.Direct}, [2]protocol.Mode{r.From, r.Mode})
	require.Equal(t, 7.0, r.BlackoutUS)
	require.Greater(t, len(r.Steps), 5, "those of both switches")
	listed("81")
	r = orderPorts(t, socket, id, nil)
	require.True(t, r.ViaServer)
	require.Nil(t, r.Ports)
	listed("all")
	for name, mode := range portModes(t, socket) {
		require.Equal(t, "direct", mode, name)
	}
	r = orderPorts(t, socket, id, web)
	require.True(t, r.ViaServer)

	back, err := orderSwitch(t, socket, id, protocol.Server, false)
	require.NoError(t, err)
	require.Nil(t, back.Ports)
	require.Nil(t, mustAsk[Status](t, socket, "status").Instances[0].DirectPorts)
	r = orderPorts(t, socket, two.Lease().ID, web)
	require.Empty(t, r.Reason)
	r = orderPorts(t, socket, id, web)
	require.Contains(t, r.Reason, steer.ErrNoVF.Error())
	require.Nil(t, r.Ports)
}

// TestSwitchPortsStays: an instance that does not answer while its ports are exchanged
// for others keeps those that it has, and the answer says so.
func TestSwitchPortsStays(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) {
		o.fabric = f
		o.StepTime = func(s protocol.Step) time.Duration {
			if s == protocol.Aligning {
				return 100 * time.Millisecond
			}
			return time.Minute
		}
	})
	i := join(t, socket, "one")
	stop := answers(i)
	id := i.Lease().ID
	require.Empty(t, orderPorts(t, socket, id, mustParse(t, "80")).Reason)
	stop()
	defer answers(i, protocol.Align)()
	r := orderPorts(t, socket, id, mustParse(t, "81"))
	require.Contains(t, r.Reason, "took too long")
	require.Equal(t, protocol.Direct, r.Mode)
	require.Equal(t, "80", r.Ports.String())
	require.True(t, r.ViaServer)
}
