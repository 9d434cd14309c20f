package live

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/plugin"
)

// A program that serves no policy is given up in time, with what it said, and the
// policy of before goes on.
func TestNoPolicy(t *testing.T) {
	a := newActuator(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	before := enclaveOf(t, a, "e")
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho reading mail >&2\necho none >&2\nsleep 1000\n"), 0o755))
	_, err = a.SetPolicyWithin("e", program, nil, time.Second)
	require.ErrorIs(t, err, plugin.ErrNoPolicy)
	require.ErrorContains(t, err, "serves a policy")
	require.ErrorContains(t, err, "1s")
	require.ErrorContains(t, err, `"reading mail"`)
	after := enclaveOf(t, a, "e")
	require.Equal(t, before.PID, after.PID)
	require.Equal(t, before.Policies, after.Policies)
	require.True(t, after.AgentOnline)
}

// A policy that has ended by the time that it would be in charge does not take the place
// of the one before; one that does, and then cannot be talked to, leaves the threads to
// the host's scheduler.
func TestPolicyEndsTooEarly(t *testing.T) {
	a := newActuator(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	before := enclaveOf(t, a, "e")
	n, err := a.beginStart("e")
	require.NoError(t, err)
	defer a.started(n)
	process, err := a.startPolicy(n, "biff", nil, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Kill(process.PID(), unix.SIGKILL))
	eventually(t, "it has ended", process.Exited)
	_, err = a.install(n, process, "biff", nil, beginDarkness(time.Time{}))
	require.ErrorIs(t, err, plugin.ErrNoPolicy)
	require.Equal(t, before.PID, enclaveOf(t, a, "e").PID)

	// One whose rings are somebody else's already.
	process, err = a.startPolicy(n, "biff", nil, 0)
	require.NoError(t, err)
	m, err := cs.NewMachine(1)
	require.NoError(t, err)
	other, err := m.NewEnclave(cs.FirstCPUs(1), cs.EnclaveOptions{})
	require.NoError(t, err)
	d, err := process.Attach(0, other)
	require.NoError(t, err)
	tids := startWorkers(t)
	was := originals(t, tids)
	require.NoError(t, a.Push("e", tids))
	_, err = a.install(n, process, "biff", nil, beginDarkness(time.Time{}))
	require.ErrorIs(t, err, cs.ErrAttached)
	require.NoError(t, d.Close(0))
	after := enclaveOf(t, a, "e")
	require.False(t, after.AgentOnline)
	require.Equal(t, before.Crashes+1, after.Crashes)
	asBefore(t, tids, was)
	_, err = a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
}
