package live

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
