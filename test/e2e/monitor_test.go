package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// dedicatedNet is where instances have addresses of their own.
const dedicatedNet = "198.18.0.128/25"

// startMonitor starts junctiond on the rig's NIC, with the instance's addresses
// as the shared ones, and waits until its network server is ready.
func (r *rig) startMonitor(flags ...string) {
	r.t.Helper()
	if r.socket == "" {
		r.socket = filepath.Join(workDir(r.t), "monitor.sock")
	}
	c := r.Server.Command(context.Background(), filepath.Join(commands, "junctiond"), slices.Concat([]string{
		"--socket", r.socket, "--nic", lab.ServerNIC, "--driver", cmp.Or(r.uplink, "afxdp"),
		"--addr", lab.ServerAddr4.String(), "--addr", lab.ServerAddr6.String(), "--dedicated", dedicatedNet,
		"--hang-after", "3s", // the tests' own load is no reason to kill it
	}, flags)...)
	r.monitor = launch(r.t, c, c.Cmd)
	r.monitor.awaitCond(r.monitor.stderr, contains("network server ready"), "the network server")
	if !r.stopped {
		r.awaitAll()
	}
	first := r.monitor
	r.t.Cleanup(func() {
		if r.monitor != first || !first.running() || r.t.Failed() {
			return // another one checks, or there is nothing to check
		}
		r.checkAccounts()
		first.terminate(0)
		require.NoDirExists(r.t, r.socket+".state")
	})
}

// awaitAll waits until the monitor awaits no instance of the one before any more.
func (r *rig) awaitAll() {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		return !slices.ContainsFunc(r.status().Instances, func(i instanceStatus) bool { return i.Mode == "awaited" })
	}, readyTimeout, 5*time.Millisecond, "an instance has not come back")
}

// monitorStatus is what junction_ctl status prints, as far as the tests read it.
type monitorStatus struct {
	PID    int `json:"pid"`
	Server struct {
		PID        int    `json:"pid"`
		Ready      bool   `json:"ready"`
		Restarts   uint64 `json:"restarts"`
		Hangs      uint64 `json:"hangs"`
		LastEnd    string `json:"last_end"`
		LastOutage int64  `json:"last_outage_ns"`
	} `json:"netserver"`
	Instances []instanceStatus `json:"instances"`
}

type instanceStatus struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
	PID  int    `json:"pid"`
	Mode string `json:"mode"`
}

// modes maps names of instances to their modes.
func (s monitorStatus) modes() map[string]string {
	m := make(map[string]string)
	for _, i := range s.Instances {
		m[i.Name] = i.Mode
	}
	return m
}

func (r *rig) status() (s monitorStatus) {
	r.t.Helper()
	r.ctl(&s, "status")
	return s
}

// awaitServer waits until a network server other than old is ready.
func (r *rig) awaitServer(old int) monitorStatus {
	r.t.Helper()
	deadline := time.Now().Add(readyTimeout)
	for {
		s := r.status()
		if s.Server.Ready && s.Server.PID != old {
			return s
		}
		require.True(r.t, time.Now().Before(deadline), "no new network server: %+v", s)
		time.Sleep(5 * time.Millisecond) // between questions
	}
}

// portOwners maps "tcp/ADDRESS" to the name of the port's owner.
func (r *rig) portOwners() map[string]string {
	r.t.Helper()
	var list struct {
		Ports []struct {
			Proto    string `json:"proto"`
			Endpoint string `json:"endpoint"`
			Name     string `json:"name"`
		} `json:"ports"`
	}
	r.ctl(&list, "ports")
	owners := make(map[string]string)
	for _, p := range list.Ports {
		owners[p.Proto+"/"+p.Endpoint] = p.Name
	}
	return owners
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
