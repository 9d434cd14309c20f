package e2e

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// startMonitor starts junctiond on the rig's NIC, with the instance's addresses
// as the shared ones, and waits until its network server is ready.
func (r *rig) startMonitor(flags ...string) {
	r.t.Helper()
	r.socket = filepath.Join(workDir(r.t), "monitor.sock")
	c := r.Server.Command(context.Background(), filepath.Join(commands, "junctiond"), slices.Concat([]string{
		"--socket", r.socket, "--nic", lab.ServerNIC, "--driver", "afxdp",
		"--addr", lab.ServerAddr4.String(), "--addr", lab.ServerAddr6.String(),
	}, flags)...)
	r.monitor = launch(r.t, c, c.Cmd)
	r.monitor.awaitCond(r.monitor.stderr, contains("network server ready"), "the network server")
	r.t.Cleanup(func() {
		if !r.t.Failed() {
			r.checkAccounts()
		}
	})
}

// traffic is an account of the network server.
type traffic struct {
	In       uint64            `json:"in"`
	Made     uint64            `json:"made"`
	Out      uint64            `json:"out"`
	Answered uint64            `json:"answered"`
	Drops    map[string]uint64 `json:"drops"`
}

type serverStats struct {
	Uplink traffic            `json:"uplink"`
	Gone   traffic            `json:"gone"`
	Ports  map[string]traffic `json:"ports"`
}

// checkAccounts checks that the network server has lost no frame without a
// name: those that came and those that it made are those that left, that it
// answered and that it dropped.
func (r *rig) checkAccounts() serverStats {
	r.t.Helper()
	var s serverStats
	r.ctl(&s, "stats")
	for _, a := range append(slices.Collect(maps.Values(s.Ports)), s.Uplink, s.Gone) {
		drops := uint64(0)
		for _, n := range a.Drops {
			drops += n
		}
		require.Equal(r.t, a.In+a.Made, a.Out+a.Answered+drops, "%+v", a)
	}
	require.NotZero(r.t, s.Uplink.In)
	return s
}

// ctl asks junctiond and decodes the answer into v.
func (r *rig) ctl(v any, args ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), exitTimeout)
	defer cancel()
	c := r.Server.Command(ctx, filepath.Join(commands, "junction_ctl"), append([]string{"--json", "--socket", r.socket}, args...)...)
	stdout, stderr := newOutput(), newOutput()
	c.Stdout, c.Stderr = stdout, stderr
	require.NoErrorf(r.t, c.Run(), "%v\n%s", c.Args, stderr)
	require.NoError(r.t, json.Unmarshal([]byte(stdout.String()), v))
}
